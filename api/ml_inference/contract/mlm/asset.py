"""Which asset of an item is the model: publishers use roles, artifact types, media types, keys, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.mlm.values import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.mlm.values import Cursor

MAX_ASSETS = 1000


def find_asset(root: Cursor, key: str | None) -> Cursor | None:
    """Find the ONNX asset of an item, for the values that assets override.

    Tried in order, each over all assets: the profile's key, `mlm:artifact_type` or media type that says ONNX, role
    `mlm:model`, the only asset, the key `model`, an address ending in `.onnx`.

    Args:
        root: the item.
        key: the profile's `asset`; one that the item lacks is a problem.

    Returns:
        None when the item has no assets or does not tell which; then nothing is overridden.
    """
    assets = root.get("assets")
    if assets is None or not isinstance(assets.value, dict):
        if key is not None:
            root.report.refuse("profile:/asset", f"the item has no assets, so none is {key!r}")
        return None
    members = [
        assets.at(name, value)
        for name, value in list(assets.value.items())[:MAX_ASSETS]
        if isinstance(value, dict)
    ]
    if key is not None:
        return _named(assets, members, key)
    found = _likely(members)
    if len(found) != 1:
        assets.warn(
            f"{[_key(m) for m in found or members][:8]} could be the model; set `asset` in the profile"
        )
        return None
    _remark_type(found[0])
    return found[0]


def _named(assets: Cursor, members: Sequence[Cursor], key: str) -> Cursor | None:
    for member in members:
        if member.pointer == assets.at(key, None).pointer:
            return member
    assets.report.refuse(
        "profile:/asset", f"the item has no asset {key!r}; it has {[_key(m) for m in members][:16]}"
    )
    return None


def _likely(members: Sequence[Cursor]) -> Sequence[Cursor]:
    """The narrowest non-empty choice that the rules give."""
    for rule in (_is_onnx, _has_role, _is_untyped, _is_model_key, _is_onnx_file):
        found = [m for m in members if rule(m)]
        members = found or members
    return members


def _key(member: Cursor) -> str:
    return member.pointer.rsplit("/", 1)[1].replace("~1", "/").replace("~0", "~")


def _artifact(member: Cursor) -> str:
    found = member.get("mlm:artifact_type")
    return str(found.value).strip().lower() if found is not None else ""


def _foreign_artifact(member: Cursor) -> bool:
    return _artifact(member) not in {"", "onnx"}


def _is_onnx(member: Cursor) -> bool:
    return _artifact(member) == "onnx" or "onnx" in str(member.value.get("type", "")).lower()


def _has_role(member: Cursor) -> bool:
    roles = member.value.get("roles")
    return isinstance(roles, list) and "mlm:model" in roles


def _is_untyped(member: Cursor) -> bool:
    return not _foreign_artifact(member)


def _is_model_key(member: Cursor) -> bool:
    return _key(member) == "model"


def _is_onnx_file(member: Cursor) -> bool:
    return member.text("href").lower().split("?")[0].endswith(".onnx")


def _remark_type(member: Cursor) -> None:
    if _foreign_artifact(member):
        member.at("mlm:artifact_type", None).warn(
            f"{show(_artifact(member))} is not ONNX and is never loaded; the card is only good beside an ONNX file of the same model"
        )
    elif not _artifact(member) and not _has_role(member):
        member.info("no mlm:model role and no mlm:artifact_type; taken for the model's asset")

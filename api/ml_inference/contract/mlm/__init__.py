"""A STAC Item with the MLM extension, of any version and dialect, read into a `ModelCard`.

Published items deviate from the schema more often than not. The reader accepts what it can interpret without
guessing and says so in a diagnostic with a JSON pointer; what it cannot serve it refuses, with all reasons at once.
Nothing in an item is imported, fetched or run. See `docs/models.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_inference.contract.card import ModelCard, Severity
from ml_inference.contract.mlm.asset import find_asset
from ml_inference.contract.mlm.bands import definitions
from ml_inference.contract.mlm.input import read_input
from ml_inference.contract.mlm.output import read_output, read_tasks
from ml_inference.contract.mlm.values import Cursor, Report, build, plain, show
from ml_inference.contract.profile import InputProfile, OutputProfile, Profile
from ml_inference.errors import CardInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import Task

MAX_TENSORS = 64
NEWEST = (1, 6)

_SCHEMA = re.compile(r"mlm(?:-extension)?/v(\d{1,4})\.(\d{1,4})\.(\d{1,4})/schema\.json")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-\s]+[A-Za-z0-9]")
_READ = ("type", "id", "stac_extensions", "properties", "assets")
_KNOWN = frozenset(
    [
        "name",
        "architecture",
        "tasks",
        "framework",
        "framework_version",
        "memory_size",
        "total_parameters",
        "pretrained",
        "pretrained_source",
        "batch_size_suggestion",
        "accelerator",
        "accelerator_constrained",
        "accelerator_summary",
        "accelerator_count",
        "input",
        "output",
        "hyperparameters",
        "artifact_type",
        "compile_method",
        "entrypoint",
    ]
)
_ACCELERATORS = frozenset(
    ["amd64", "cuda", "xla", "amd-rocm", "intel-ipex-cpu", "intel-ipex-gpu", "macos-arm"]
)
_ALIASES = {"cpu": "amd64", "gpu": "cuda"}


def read_card(item: Mapping[str, Any], profile: Profile | None = None) -> ModelCard:
    """Read an item, with the profile above it.

    Args:
        item: a STAC Item as JSON gave it, or as a catalogue in Parquet did (null-filled, numpy arrays).
        profile: the operator's word, for what MLM cannot say or the item has wrong.

    Returns:
        The card as far as the item knows it; `reconcile` settles it with the graph.

    Raises:
        CardInvalid: with every reason; never anything else, whatever `item` holds.
    """
    report = Report()
    profile = profile or Profile()
    root, properties = _open(item, report)
    asset = find_asset(root, profile.asset)
    if profile.source:
        report.note(Severity.INFO, "profile:/source", f"the profile's values come from: {profile.source}")
    card = _Reader(root, properties, asset, profile).card()
    report.raise_problems("the model")
    if card is None:  # pragma: no cover - a card is missing only where a problem says why
        raise CardInvalid("the model's item cannot be read")
    return card.model_copy(update={"diagnostics": tuple(report.diagnostics)})


def _open(item: Mapping[str, Any], report: Report) -> tuple[Cursor, Cursor]:
    """The item without what nobody reads here (geometry, links), and its properties."""
    if not isinstance(item, Mapping):
        raise _not_an_item(f"{type(item).__name__} is no JSON object")
    kept = {key: value for key, value in item.items() if key in _READ or str(key).startswith("mlm:")}
    root = Cursor(plain(kept, report), "", report)
    if root.value.get("type") in (
        "Collection",
        "Catalog",
        "FeatureCollection",
    ):  # perhaps unhashable, so no set
        raise _not_an_item(f"a STAC {root.value['type']} is no STAC Item")
    properties = root.get("properties")
    if properties is None and any(key.startswith("mlm:") for key in root.value):
        root.warn("no `properties`; the item is a flat row of a catalogue, read as it stands")
        return root, root
    if properties is None or not isinstance(properties.value, dict):
        raise _not_an_item("it has no `properties`")
    return root, properties


def _not_an_item(message: str) -> CardInvalid:
    return CardInvalid(f"the model's item cannot be read: {message}", (("", message),))


@dataclass(frozen=True, slots=True)
class _Reader:
    root: Cursor
    properties: Cursor
    asset: Cursor | None
    profile: Profile

    def card(self) -> ModelCard | None:
        """Everything, or None when problems were found."""
        self._remark_unknown()
        tasks = self._tasks()
        hyperparameters = self._hyperparameters()
        known = definitions(self.root, self.asset)
        inputs = [
            read_input(e, known, o) for e, o in self._entries("input", self.profile.input, InputProfile())
        ]
        outputs = [
            read_output(e, tasks, hyperparameters, o)
            for e, (_, o) in self._entries("output", self.profile.output, OutputProfile())
        ]
        accelerator, constrained = self._accelerator()
        values: dict[str, Any] = {
            "name": self._name(),
            "item_id": self.root.text("id") or None,
            "mlm_version": self._version(),
            "architecture": self._architecture(),
            "framework": f"{self._shown('framework')} {self._shown('framework_version')}".strip(),
            "description": self.properties.text("description"),
            "batch_size": self._count("batch_size_suggestion", 1, "the server's own limit applies"),
            "memory_size": self._memory(),
            "accelerator": accelerator,
            "accelerator_constrained": constrained,
            "hyperparameters": hyperparameters,
        }
        if self.root.report.problems:
            return None
        return build(self.root, ModelCard, inputs=tuple(inputs), outputs=tuple(outputs), **values)

    def _field(self, name: str) -> Cursor | None:
        """A property; the model asset's own value stands above the item's."""
        own = self.asset.get(f"mlm:{name}") if self.asset is not None else None
        return own if own is not None else self.properties.get(f"mlm:{name}")

    def _shown(self, name: str) -> str:
        found = self._field(name)
        return found.value.strip() if found is not None and isinstance(found.value, str) else ""

    def _remark_unknown(self) -> None:
        for key in self.properties.value:
            if key.startswith("mlm:") and key[4:] not in _KNOWN:
                self.properties.at(key, None).warn("not a field of MLM; ignored")
        for name in ("name", "input", "output", "hyperparameters"):
            misplaced = self.asset.get(f"mlm:{name}") if self.asset is not None else None
            if misplaced is not None:
                misplaced.warn("belongs to the item, not to an asset; ignored")

    def _name(self) -> str:
        name = self.properties.text("mlm:name")
        where = self.properties.at("mlm:name", None)
        if not name:
            where.warn("mlm:name is missing")
        elif not _NAME.fullmatch(name):
            where.warn(f"mlm:name {show(name)} is not a name in the schema's sense; shown as it is")
        return name or self.root.text("id") or "model"

    def _architecture(self) -> str:
        found = self._shown("architecture")
        if not found:
            self.properties.at("mlm:architecture", None).warn("mlm:architecture is missing")
        return found

    def _version(self) -> str | None:
        listed = self.root.get("stac_extensions")
        for entry in listed.items() if listed is not None else []:
            found = _SCHEMA.search(entry.value) if isinstance(entry.value, str) else None
            if found is None:
                continue
            version = int(found[1]), int(found[2]), int(found[3])
            if not (1, 0) <= version[:2] <= NEWEST:
                entry.warn(f"MLM {version[0]}.{version[1]} is not known; read as {NEWEST[0]}.{NEWEST[1]}")
            elif "crim-ca" in entry.value or "//stac-extensions/" in entry.value:
                entry.info("an earlier address of the MLM schema; read as the same version")
            return ".".join(map(str, version))
        self.root.at("stac_extensions", None).warn("no MLM schema is listed; read as the newest version")
        return None

    def _tasks(self) -> tuple[Task, ...]:
        found = self.properties.get("mlm:tasks")
        tasks, words = read_tasks(found)
        if not words:
            self.properties.at("mlm:tasks", None).warn(
                "mlm:tasks is missing or empty; the outputs' own tasks decide"
            )
        return tasks

    def _hyperparameters(self) -> dict[str, Any]:
        found = self.properties.get("mlm:hyperparameters")
        if found is None:
            return {}
        if not isinstance(found.value, dict):
            found.warn(f"{show(found.value)} is no object; ignored")
            return {}
        return found.value

    def _count(self, name: str, least: int, otherwise: str) -> int | None:
        found = self._field(name)
        if found is None:
            return None
        count = found.integer()
        if count is None or count < least:
            found.warn(f"{show(found.value)} is no integer from {least} on; {otherwise}")
            return None
        if isinstance(found.value, float):
            found.info(f"{found.value} read as {count}")
        return count

    def _memory(self) -> int | None:
        memory = self._count("memory_size", 0, "ignored")
        holders = [h for h in (self.asset, self.properties) if h is not None]
        sizes = (
            n
            for h in holders
            if (s := h.first("file:size", "size")) is not None and (n := s.integer()) is not None
        )
        size = next(sizes, None)
        if memory is not None and size is not None and memory < size:
            where = self._field("memory_size") or self.properties
            where.warn(
                f"{memory} bytes of memory is less than the file's {size} bytes; probably another unit"
            )
        return memory

    def _accelerator(self) -> tuple[str | None, bool]:
        found = self._field("accelerator")
        constraint = self._field("accelerator_constrained")
        constrained = constraint is not None and constraint.value is True
        if constraint is not None and not isinstance(constraint.value, bool):
            constraint.warn(f"{show(constraint.value)} is not true or false; read as false")
        count = self._count("accelerator_count", 1, "ignored")
        if count is not None and count > 1:
            (self._field("accelerator_count") or self.properties).warn(
                f"{count} accelerators; each copy here runs on one"
            )
        if found is None:
            return None, False
        word = str(found.value).strip().lower()
        name = _ALIASES.get(word, word)
        if name not in _ACCELERATORS:
            found.warn(f"accelerator {show(found.value)} is not known; any will do")
            return None, False
        if name != found.value:
            found.warn(f"accelerator {show(found.value)} read as {name}")
        return name, constrained

    def _entries[T: (InputProfile, OutputProfile)](
        self, side: str, profiles: Sequence[T], default: T
    ) -> list[tuple[Cursor, tuple[str, T]]]:
        """Each entry of `mlm:input` or `mlm:output` with the profile's word on it, by name or else by position."""
        found = self.properties.get(f"mlm:{side}")
        entries = found.items() if found is not None else []
        where = found or self.properties.at(f"mlm:{side}", None)
        if not entries or len(entries) > MAX_TENSORS:
            where.refuse(f"{len(entries) or 'no'} {side}s: 1 to {MAX_TENSORS} are expected")
            return []
        if not isinstance(where.value, list):
            where.warn(f"mlm:{side} is one object instead of a list; read as a list of one")
        names = [e.value.get("name") if isinstance(e.value, dict) else None for e in entries]
        chosen = [(f"profile:/{side}/{i}", default) for i in range(len(entries))]
        for i, profile in enumerate(profiles):
            target = (
                i
                if profile.name is None
                else names.index(profile.name)
                if profile.name in names
                else len(entries)
            )
            if target < len(entries):
                chosen[target] = (f"profile:/{side}/{i}", profile)
                self._remark_profile(*chosen[target])
            else:
                where.report.refuse(
                    f"profile:/{side}/{i}", f"the item has no such {side}; it has {show(names)}"
                )
        return list(zip(entries, chosen, strict=True))

    def _remark_profile(self, pointer: str, profile: InputProfile | OutputProfile) -> None:
        for name in sorted(profile.model_fields_set - {"name"}):
            value = getattr(profile, name)
            shown = show(value) if isinstance(value, str | int | float) else "set"
            self.root.report.note(Severity.INFO, f"{pointer}/{name}", f"{name}: {shown}, by the profile")

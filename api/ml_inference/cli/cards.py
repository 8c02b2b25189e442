"""`models` and `lint`: what can be served, and what a server would say of an item."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import orjson

from ml_inference.cli.local import FOR_EVER, local_services
from ml_inference.errors import CardInvalid
from ml_inference.protocol.failures import clean
from ml_inference.services import lint_item

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO


@click.command()
@click.argument("name", required=False)
@click.option("--version", help="Show this version instead of the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, version: str | None, *, as_json: bool) -> None:
    """List the models, or show the card of one.

    The list holds those that are known without a network. With NAME the model is loaded, and its card printed as it
    would be served.
    """
    if name is None:
        found = asyncio.run(_statuses())
        click.echo(_json(found) if as_json else _table(found))
    else:
        card = asyncio.run(_card(name, version))
        click.echo(_json(card) if as_json else _outline(card))


async def _statuses() -> list[dict[str, Any]]:
    async with local_services() as services:
        return [
            {"name": each.name, "version": each.version, "source": each.source, "state": str(each.state)}
            for each in services.registry.statuses()
        ]


async def _card(name: str, version: str | None) -> dict[str, Any]:
    async with local_services(name) as services:
        model = await services.registry.get(name, version, FOR_EVER)
        return model.describe()


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [("MODEL", "VERSION", "SOURCE", "STATE")]
    cells += [(row["name"], row["version"] or "-", row["source"], row["state"]) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _outline(value: Any, indent: str = "") -> str:
    """A JSON value as indented lines, as YAML would have them; what is empty is left out."""
    if isinstance(value, list):
        items = [_outline(each, indent + "  ").removeprefix(indent + "  ") for each in value]
        return "\n".join(f"{indent}- {item}" for item in items)
    if isinstance(value, dict):
        full = {name: inner for name, inner in value.items() if inner not in (None, "", [], {})}
        return "\n".join(f"{indent}{name}:{_value(inner, indent)}" for name, inner in full.items())
    return indent + _plain(value)


def _value(inner: Any, indent: str) -> str:
    """What follows a name: on its line where it is one value or a list of such, else beneath it."""
    if isinstance(inner, list) and not any(isinstance(each, list | dict) for each in inner):
        return " " + ", ".join(map(_plain, inner))
    return "\n" + _outline(inner, indent + "  ") if isinstance(inner, list | dict) else f" {_plain(inner)}"


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else clean(str(value))


@click.command()
@click.argument("item", type=click.File("rb"))
@click.option(
    "--profile", type=click.File("r", encoding="utf-8"), help="A profile that goes with the item (TOML)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lint(item: BinaryIO, profile: Any, *, as_json: bool) -> None:
    """Say what a server would say of an item.

    ITEM is a STAC Item with the MLM extension: a file, or - for stdin. Each remark comes with its JSON pointer; exit
    code 1 means that the model would be refused.
    """
    report = lint_item(item.read(), profile.read() if profile else None)
    if as_json:
        click.echo(_json([each.model_dump(mode="json") for each in report]))
    else:
        for each in report:
            click.echo(clean(f"{each.severity:<7}  {each.pointer or '/'}  {each.message}"))
    errors = sum(each.severity == "error" for each in report)
    if errors:
        raise CardInvalid(
            f"{item.name}: {errors} problem{'s' * (errors > 1)}; a server would refuse this model"
        )

"""`settings` and `samples`: what the service is told, and something to try it on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import orjson

from ml_inference.services import write_samples
from ml_inference.settings import Row, describe, load_settings, render_env_example


@click.command()
@click.option("--env-example", is_flag=True, help="Print a .env file with every setting at its default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(*, env_example: bool, as_json: bool) -> None:
    """Print every setting and its value.

    Each comes with its meaning, its default and what is legal; keys are masked.
    """
    if env_example:
        click.echo(render_env_example(), nl=False)
        return
    rows = describe(load_settings())
    if as_json:
        click.echo(orjson.dumps([asdict(row) for row in rows], option=orjson.OPT_INDENT_2))
    else:
        click.echo("\n\n".join(_paragraph(row) for row in rows))


def _paragraph(row: Row) -> str:
    changed = f"   (default: {row.default or 'none'})" if row.value != row.default else ""
    return f"{row.name}={row.value}{changed}\n    {row.meaning}\n    Legal: {row.legal}."


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def samples(folder: Path) -> None:
    """Write a sample tile to try models on.

    It is a real Sentinel-2 chip; FOLDER is made where needed, and the tile's path printed.
    """
    click.echo(write_samples(folder))

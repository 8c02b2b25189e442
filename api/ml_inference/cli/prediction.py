"""`predict`: images through a model, in this process."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from ml_inference.cli.local import FOR_EVER, bar, local_services
from ml_inference.errors import InvalidRequest, ProcessorError
from ml_inference.imagery import decode, offered
from ml_inference.web.answers import make_body
from ml_inference.web.query import parse_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_inference.contract.options import PredictOptions
    from ml_inference.engine.model import Answer, ServedModel
    from ml_inference.services import Services

FORMATS = {
    "tiff": "image/tiff",
    "png": "image/png",
    "json": "application/json",
    "geojson": "application/geo+json",
    "npy": "application/x-npy",
}
SUFFIXES = {".tif": "tiff", ".tiff": "tiff"} | {f".{name}": name for name in FORMATS if name != "tiff"}
EXTENSIONS = {name: suffix for suffix, name in reversed(SUFFIXES.items())}
AT_ONCE = 4
"""Images under way together: enough to fill a batch, few enough to bound memory."""


@dataclass(frozen=True)
class Target:
    """Where answers go.

    Attributes:
        path: a file, a folder, or None for stdout.
        format: a key of `FORMATS`, or None for the model's own choice.
    """

    path: Path | None
    folder: bool
    format: str | None

    def path_for(self, file: Path, name: str) -> Path | None:
        """The file that the answer for an image goes to; None is stdout."""
        return self.path / f"{file.stem}{EXTENSIONS[name]}" if self.folder and self.path else self.path


@click.command()
@click.argument("model")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "-o", "--out", help="File or folder for the answers; the suffix chooses the format. - is stdout."
)
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), help="Format, where no suffix tells it."
)
@click.option("--output", help="labels (default), probabilities or raw.")
@click.option("--threshold", help="For one-channel scores and for detections.")
@click.option("--bands", help="Which band of the file is which: B04,B03,B02.")
@click.option(
    "--scaling", help="How pixels become what the model was trained on, where its card leaves it open."
)
@click.option("--version", help="Version of the model; the newest unless given.")
def predict(
    model: str,
    files: tuple[Path, ...],
    out: str | None,
    format_: str | None,
    version: str | None,
    **choices: str | None,
) -> None:
    """Run a model on images, without a server.

    FILES are GeoTIFF, JP2, PNG, JPEG or .npy. Without -o the answer goes to stdout; several files that are not answered
    in JSON need a folder (-o DIR/).
    """
    target = _target(out, format_, files)
    given = {name: value for name, value in choices.items() if value is not None}
    # The same words as over HTTP, and the same refusals.
    options = parse_query(urlencode(given).encode("ascii")).options
    failed = asyncio.run(_predict(model, version, files, target, options))
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files failed")


def _target(out: str | None, format_: str | None, files: Sequence[Path]) -> Target:
    if out is None or out == "-":
        if len(files) > 1 and format_ not in {None, "json"}:
            raise click.UsageError("several files need a folder for their answers: -o DIR/")
        return Target(None, folder=False, format=format_ or ("json" if len(files) > 1 else None))
    path = Path(out)
    if path.is_dir() or out.endswith("/") or len(files) > 1:
        return Target(_folder(path, files), folder=True, format=format_)
    suffix = SUFFIXES.get(path.suffix.lower())
    if suffix is None and format_ is None:
        raise click.UsageError(
            f"-o {out}: expected a name that ends in {', '.join(SUFFIXES)}; or give --format"
        )
    return Target(path, folder=False, format=format_ or suffix)


def _folder(path: Path, files: Sequence[Path]) -> Path:
    names_a_file = path.suffix.lower() in SUFFIXES and not path.is_dir()
    if names_a_file or (path.exists() and not path.is_dir()):
        raise click.UsageError(f"-o {path}: several files need a folder for their answers")
    stems = [file.stem for file in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise click.UsageError(f"two files are called {twice}: their answers would be one file")
    return path


async def _predict(
    name: str, version: str | None, files: Sequence[Path], target: Target, options: PredictOptions
) -> int:
    """Answers in the order of the files; returns how many failed, each with its line on stderr."""
    async with local_services(name) as services:
        model = await services.registry.get(name, version, FOR_EVER)
        run = _Run(services, model, target, options, frozenset(file.resolve() for file in files))
        if len(files) > 1:
            return await _several(run, files)
        run.write(files[0], *await run.answer(files[0]))
        return 0


async def _several(run: _Run, files: Sequence[Path]) -> int:
    room = asyncio.Semaphore(AT_ONCE)

    async def begun(file: Path) -> tuple[str, bytes]:
        await room.acquire()  # given back when the answer is written, so that no others wait in memory
        return await run.answer(file)

    failed = 0
    tasks = [asyncio.create_task(begun(file)) for file in files]
    with bar(run.model.name, len(files)) as shown:
        for file, task in zip(files, tasks, strict=True):
            try:
                run.write(file, *await task)
            except BrokenPipeError:
                raise
            except (ProcessorError, OSError) as error:
                failed += 1
                click.echo(f"{file}: {error}", err=True)
            room.release()
            shown.update(1)
    return failed


class _Run:
    """One command: a model, what is asked of it, and where its answers go."""

    def __init__(
        self,
        services: Services,
        model: ServedModel,
        target: Target,
        options: PredictOptions,
        images: frozenset[Path],
    ) -> None:
        self.model = model
        self._services = services
        self._target = target
        self._options = options
        self._images = images

    async def answer(self, file: Path) -> tuple[str, bytes]:
        """The format of the answer for an image, and its bytes."""
        named = self._options.named_bands
        raster = await self._in_pool(lambda: decode(file.read_bytes(), self._services.limits, named=named))
        answer = await self.model.predict(raster, self._options, FOR_EVER)
        name, media_type = self._choose(answer)
        return name, await self._in_pool(lambda: make_body(answer, media_type, None))

    def _choose(self, answer: Answer) -> tuple[str, str]:
        possible = {name: each for each in offered(answer.prediction) for name in FORMATS if _is(each, name)}
        name = self._target.format or next(iter(possible))
        if name not in possible:
            legal = ", ".join(possible)
            raise InvalidRequest(f"{self.model.name} cannot answer as {name}: expected one of {legal}")
        return name, possible[name]

    def write(self, file: Path, name: str, content: bytes) -> None:
        """Put an answer where it belongs, never over one of the images."""
        path = self._target.path_for(file, name)
        if path is None:
            _print(name, content)
            return
        if path.resolve() in self._images:
            raise InvalidRequest(f"the answer would replace the image {path}: choose another place with -o")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    async def _in_pool[Result](self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._services.pool, work)


def _is(media_type: str, name: str) -> bool:
    return media_type.partition(";")[0].strip() == FORMATS[name]


def _print(name: str, content: bytes) -> None:
    if name in {"json", "geojson"}:
        click.echo(content)
        return
    if sys.stdout.isatty():
        raise InvalidRequest(f"the answer is a {name} file and no text for a terminal: name a file with -o")
    sys.stdout.buffer.write(content)

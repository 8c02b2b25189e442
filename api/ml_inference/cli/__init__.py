"""`ml-inference`: the same doors from a shell."""

from __future__ import annotations

from typing import Any

import click

from ml_inference import __version__
from ml_inference.cli.cards import lint, models
from ml_inference.cli.prediction import predict
from ml_inference.cli.server import serve
from ml_inference.cli.setup import samples, settings
from ml_inference.errors import ProcessorError
from ml_inference.protocol.failures import clean

INTERRUPTED = 128 + 2
"""What a shell expects of a command that Ctrl-C ended."""


class Commands(click.Group):
    """A group whose commands end with an answer, or with one line on stderr; never with a stack trace for a known error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            ClickException: exit code 1 and its one line.
            Exit: Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except ProcessorError as error:
            raise click.ClickException(clean(str(error))) from error
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has left
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Serve ONNX models that come with a STAC MLM item, or run them here.

    Settings come from the environment and from .env; see `ml-inference settings`.
    """


for command in (serve, predict, models, lint, samples, settings):
    main.add_command(command)

"""All commands under one name, and how errors and Ctrl-C become exit statuses."""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Annotated, TextIO

import typer
from rich.markup import escape

from coexec import __version__
from coexec.base.errors import CoexecError, FallbackWarning, ModelWarning
from coexec.cli import (
    calibrate,
    compare,
    compress,
    devices,
    plan,
    profile,
    run,
    serve_bench,
    simulate,
    study,
    train,
    tune,
    validate,
    zoo,
)
from coexec.cli.interrupted import INTERRUPTED, tell_interrupted
from coexec.cli.output import fail, fail_unprinted, fail_usage, notes, replace_unprintable

app = typer.Typer(
    name="coexec",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
for module in (
    calibrate,
    compare,
    compress,
    devices,
    plan,
    profile,
    run,
    serve_bench,
    simulate,
    study,
    train,
    tune,
    validate,
    zoo,
):
    module.register(app)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why what is printed cannot be written, where it goes into a file."""


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"coexec {__version__}\n")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train and run ONNX models on every processor of one device."""


def main() -> None:
    """A command by ``sys.argv``.

    Raises:
        SystemExit: 1 error, 2 usage, 130 Ctrl-C.
    """
    replace_unprintable()
    try:
        # Commands print fallbacks themselves, in the form that was asked for. Filters stay until
        # the process ends: what a thread still compiles then is no more to be warned of.
        warnings.simplefilter("ignore", FallbackWarning)
        warnings.simplefilter("once", ModelWarning)
        _note_model_warnings()
        app()
    except CoexecError as error:
        sys.exit(fail(error))
    except SystemExit as ending:
        # Typer makes this status of a KeyboardInterrupt, without a word.
        if ending.code == INTERRUPTED:
            tell_interrupted()
        fail_usage(ending.__context__)
        raise
    except OSError as error:
        # Files that commands write are told of by name; what has none is what they print.
        if error.errno not in FULL or error.filename is not None:
            raise
        sys.exit(fail_unprinted(error))
    except KeyboardInterrupt:  # before Typer has put its commands together
        tell_interrupted()
        sys.exit(INTERRUPTED)
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        # Modules in C++ make one of a Ctrl-C while they are imported.
        tell_interrupted()
        sys.exit(INTERRUPTED)


def _note_model_warnings() -> None:
    """Print what is said about models as notes, without a line of Python; others as ever."""
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, ModelWarning):
            notes.print(f"[yellow]note:[/] {escape(str(message))}", soft_wrap=True)
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show

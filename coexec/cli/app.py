"""All commands under one name, and how errors and Ctrl-C become exit statuses."""

from __future__ import annotations

import sys
import warnings

import typer

from coexec.base.errors import CoexecError, FallbackWarning
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
from coexec.cli.output import fail

app = typer.Typer(
    name="coexec",
    help="Train and run ONNX models on every processor of one device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
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


def main() -> None:
    """A command by ``sys.argv``.

    Raises:
        SystemExit: 1 error, 2 usage, 130 Ctrl-C.
    """
    # Commands print fallbacks themselves, in the form that was asked for.
    warnings.simplefilter("ignore", FallbackWarning)
    try:
        app()
    except CoexecError as error:
        sys.exit(fail(error))
    except SystemExit as ending:
        # Typer makes this status of a KeyboardInterrupt, without a word.
        if ending.code == INTERRUPTED:
            tell_interrupted()
        raise
    except KeyboardInterrupt:  # before Typer has put its commands together
        tell_interrupted()
        sys.exit(INTERRUPTED)

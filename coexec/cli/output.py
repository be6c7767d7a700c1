"""What commands print: tables and progress for people on stderr or stdout, or one JSON object."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coexec.base.disk import is_special
from coexec.base.errors import CoexecError, UsageError
from coexec.passes.float16 import Conversion

console = Console()
notes = Console(stderr=True)


def print_json(record: Mapping[str, Any]) -> None:
    """One JSON object on stdout; NaN and infinity, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(_plain(record), allow_nan=False) + "\n")


def replace_unprintable() -> None:
    """Have what a terminal or file of another encoding cannot show printed as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def fail(error: CoexecError) -> int:
    """Report an error the way the user asked for; returns the exit status."""
    if "--json" in sys.argv:
        print_json({"error": str(error), "kind": type(error).__name__})
    else:
        notes.print("[bold red]error:[/]", end=" ")
        notes.print(str(error), markup=False, highlight=False, soft_wrap=True)
    return error.exit_status


def fail_unprinted(error: OSError) -> int:
    """Tell people that stdout took no more; what it held back is given up. Returns the status."""
    with contextlib.suppress(OSError):  # of a file that is full: closing tries to write it again
        sys.stdout.close()
    notes.print("[bold red]error:[/]", end=" ")
    notes.print(f"cannot write to stdout: {error.strerror}", highlight=False, soft_wrap=True)
    return CoexecError.exit_status


def fail_usage(refusal: BaseException | None) -> None:
    """Report in JSON, where it was asked for, what Typer refused and has told people of.

    ``refusal`` is one of the exceptions of Typer, which know their message; others are nothing.
    """
    message = getattr(refusal, "format_message", None)
    if callable(message) and "--json" in sys.argv:
        print_json({"error": str(message()), "kind": UsageError.__name__})


def parse_pairs(values: list[str] | None, flag: str) -> dict[str, str]:
    """``["x=a.npy"]`` -> ``{"x": "a.npy"}``.

    Raises:
        UsageError: an item without ``=`` or a name given twice.
    """
    pairs: dict[str, str] = {}
    for item in values or []:
        name, separator, value = item.partition("=")
        if not (separator and name and value):
            raise UsageError(f"{flag} {item!r}: write it as {flag} NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{flag} names {name!r} twice")
        pairs[name] = value
    return pairs


def parse_shapes(values: list[str] | None) -> dict[str, tuple[int, ...]]:
    """``["x=1x3x224x224"]`` -> ``{"x": (1, 3, 224, 224)}``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, text in parse_pairs(values, "--shape").items():
        try:
            shapes[name] = tuple(int(dim) for dim in text.lower().split("x"))
        except ValueError as error:
            raise UsageError(f"--shape {name}={text}: write it as {name}=1x3x224x224") from error
    return shapes


def require_writable(path: Path | None, flag: str) -> None:
    """Fail before a long run, not after it, when an output's folder takes no file."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder; name a file")
    if is_special(path) and os.access(path, os.W_OK):
        return
    folder = (path.resolve() if path.is_symlink() else path.absolute()).parent
    if not folder.is_dir():
        raise UsageError(f"{flag} {path}: the folder {folder} does not exist")
    _try_file(folder, f"{flag} {path}")


def require_folder(path: Path | None, flag: str) -> None:
    """Make the folder now, and fail before a long run when it cannot be made or takes no file."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{flag} {path}: cannot make the folder: {error.strerror or error}"
        ) from error
    _try_file(path, f"{flag} {path}")


def _try_file(folder: Path, what: str) -> None:
    """Permissions do not tell of read-only and special file systems: making a file does."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{what}: cannot write in {folder}: {error.strerror or error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def show_conversions(conversions: Sequence[Conversion]) -> None:
    """What of a model computes in float16, and what does not and why, on stderr."""
    for each in conversions:
        show_conversion(each.lines())


def show_conversion(lines: Sequence[str]) -> None:
    """The same, of what a conversion says of itself."""
    for line in lines:
        notes.print(f"[cyan]float16:[/] {escape(line)}", highlight=False)

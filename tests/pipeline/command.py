"""Running the command line: in this process (fast) or in one of its own (killable)."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from coexec.cli.app import main

PROGRAM = (sys.executable, "-c", "from coexec.cli import main; main()")
SECONDS = 300


@dataclass(frozen=True)
class Done:
    """A finished command: exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """Standard output as the one JSON object it must be, of a command that succeeded."""
        assert self.status == 0, f"exit status {self.status}: {self.out}{self.err}"
        return self.json_object()

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object of a command that failed."""
        assert self.status not in (0, None)
        record = self.json_object()
        assert set(record) == {"error", "kind"}
        return record

    def json_object(self) -> dict[str, Any]:
        """Standard output, which must be one line with one JSON object."""
        assert self.out.count("\n") == 1, self.out
        assert self.out.endswith("\n")
        record = json.loads(self.out, parse_constant=_no_constant)
        assert isinstance(record, dict)
        return record


def coexec(*arguments: str | Path) -> Done:
    """Run a command in this process, through all of the installed script but its own end."""
    argv = ["coexec", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    status: int | str | None = 0
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ending:
            status = ending.code
    assert isinstance(status, int) or status is None
    return Done(status or 0, _plain(out.getvalue()), _plain(err.getvalue()))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a command that :func:`start` began."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return Done(process.returncode, _plain(out), _plain(err))


def python(code: str, arguments: Sequence[str | Path] = ()) -> Done:
    """Run Python code in a process of its own."""
    return finish(
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


def failed(done: Done, status: int = 1) -> str:
    """The message of a command that failed, as people see it: one line, nothing on stdout."""
    assert (done.status, done.out) == (status, ""), done
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.err
    return done.err[done.err.index("error: ") :].removeprefix("error: ").strip()


def _plain(text: str) -> str:
    """Without colours, which a build server may ask for."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")

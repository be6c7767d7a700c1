"""How coordinator and workers talk: one JSON object a line, on the worker's stdin and stdout.

Requests are ``{"do": NAME, ...}``; an answer is ``{"ok": {...}}`` or ``{"error": "why"}``. Where
several contenders share a worker, ``who`` says whose case is meant:

* ``describe`` -> name and version of the library
* ``prepare`` with ``case`` -> facts about it (memory, time of the first step)
* ``outputs`` with ``path`` -> the case's results are in that ``.npz`` file
* ``time`` with ``seconds`` -> ``calls``: seconds of each call (or burst of short calls, divided)
* ``measure`` -> limits of the device, where the peer knows how
* ``drop`` -> the case's memory is free again
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
PATIENCE = 180.0
"""Seconds after which a worker that does not answer has failed."""


class PeerFailed(Exception):
    """A peer cannot do what was asked; the message says why."""


class PeerEnded(PeerFailed):
    """Its process is not there any more, and with it all that it had prepared."""


class Worker:
    """A running worker process. Its standard error goes to ``log``."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None = None
    ) -> None:
        inherited = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log if log is not None else sys.stderr.fileno(),
            env=inherited,
            cwd=ROOT,
        )
        self._buffer = b""

    def ask(self, request: Mapping[str, Any], patience: float = PATIENCE) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            PeerEnded: the worker ended, or took longer than ``patience`` seconds and was stopped.
            PeerFailed: it said why not.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerEnded(self._ending()) from None
        answer: dict[str, Any] = json.loads(self._line(patience))
        if "error" in answer:
            raise PeerFailed(answer["error"])
        result: dict[str, Any] = answer["ok"]
        return result

    def _line(self, patience: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + patience
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                self._process.kill()
                raise PeerEnded(f"no answer in {patience:.0f} s: stopped")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise PeerEnded(self._ending())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ending(self) -> str:
        return f"the process ended, status {self._process.wait()}"

    def close(self) -> None:
        """End the process: it leaves at the end of its input, or is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.kill()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

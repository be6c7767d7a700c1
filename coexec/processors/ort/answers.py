"""What ONNX Runtime said of calls, kept on disk: asking an NPU's simulator takes seconds a call.

A question is a model of one node (a few for a function body), so that operator, shapes, types,
attributes and small constants are all in its text. The file is that of a provider and of the
versions of ONNX Runtime and its plug-in.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from coexec.base.cache import keep_merged
from coexec.base.knobs import cache_dir
from coexec.core.processor import Support

log = logging.getLogger(__name__)
FORMAT = 1
"""Changes when what is asked changes beside the text of the model: older files are left alone."""
WORTH_SECONDS = 0.2
"""Time spent on asking after which the answers are written: a CPU takes a millisecond for one."""


class Answers:
    """Answers of one provider by question."""

    def __init__(self, provider: str, version: str) -> None:
        self.identity = {"format": str(FORMAT), "provider": provider, "version": version}
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        stem = re.sub(r"[^a-z0-9]+", "-", provider.lower())
        self.path = cache_dir() / "support" / f"{stem}-{digest[:16]}.json"
        self._known = _read(self.path)
        self._unsaved_seconds = 0.0

    def find(self, question: bytes) -> Support | None:
        """The answer, if it is known."""
        known = self._known.get(_key(question))
        return None if known is None else Support(known["yes"], known["reason"])

    def put(self, operator: str, question: bytes, answer: Support, seconds: float) -> None:
        """Keep an answer that took so long."""
        record = {"operator": operator, "yes": answer.yes, "reason": answer.reason}
        self._known[_key(question)] = record
        self._unsaved_seconds += seconds
        if self._unsaved_seconds >= WORTH_SECONDS:
            self.save()

    def save(self) -> None:
        """Write all answers, if it can be (see :func:`coexec.base.cache.keep`)."""
        keep_merged(self.path, self._merged)
        self._unsaved_seconds = 0.0

    def _merged(self) -> bytes:
        """The file's answers, to which another process may have added, and these."""
        self._known = _read(self.path) | self._known
        return json.dumps({**self.identity, "answers": self._known}, indent=1).encode()


def _key(question: bytes) -> str:
    return hashlib.sha256(question).hexdigest()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The file's answers; what is damaged is asked again."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): _answer(each) for key, each in record["answers"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("asking again, %s is damaged: %s", path, error)
        return {}


def _answer(record: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record["yes"], bool):
        raise ValueError(f"no answer: {record['yes']!r}")
    return {key: record[key] for key in ("operator", "yes", "reason")}

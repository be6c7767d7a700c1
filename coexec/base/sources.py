"""Source code as a digest: what was measured or made with other code can be told from it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

DIGITS = 16


def text_digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def module_digest(function: Callable[..., Any]) -> str:
    """Digest of the module in which a function, or the one within a partial, was written."""
    while isinstance(function, partial):
        function = function.func
    return _file_digest(str(sys.modules[function.__module__].__file__))


@cache
def _file_digest(path: str) -> str:
    """Of a module without readable source (a frozen program) nothing changes."""
    file = Path(path)
    return text_digest(file.read_text(encoding="utf-8")) if file.suffix == ".py" else ""


@cache
def package_digest(name: str) -> str:
    """Digest of the modules of a package that is installed, without those of packages in it."""
    found = find_spec(name)
    places = () if found is None else found.submodule_search_locations or ()
    files = sorted(file for place in places for file in Path(place).glob("*.py"))
    return text_digest("\n".join(_file_digest(str(file)) for file in files))

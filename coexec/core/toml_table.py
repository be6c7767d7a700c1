"""A table of a TOML file that knows its own name, for messages, and which keys were wanted."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coexec.base.errors import UsageError
from coexec.base.names import known_names


class TomlTable:
    """Values by key; every reader raises a ``UsageError`` that names file and key."""

    def __init__(self, values: Mapping[str, Any], prefix: str, path: Path) -> None:
        self.values = values
        self.prefix = prefix
        self.path = path
        self.seen: set[str] = set()

    @classmethod
    def of_file(cls, path: Path) -> TomlTable:
        """The outermost table of a file.

        Raises:
            UsageError: unreadable or not TOML.
        """
        try:
            return cls(tomllib.loads(path.read_text(encoding="utf-8")), "", path)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not a TOML file: it is no text in UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not a TOML file: {error}") from error

    def error(self, key: str, complaint: str) -> UsageError:
        return UsageError(f"{self.path}: {self.prefix}{key} {complaint}")

    def get(self, key: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        self.seen.add(key)
        if key not in self.values:
            raise self.error(key, "is missing")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"is {value!r}; {wanted} is wanted")
        return value

    def text(self, key: str) -> str:
        return str(self.get(key, str, "a text"))

    def truth(self, key: str) -> bool:
        return bool(self.get(key, bool, "true or false"))

    def number(self, key: str, *, above_zero: bool = False) -> float:
        value = float(self.get(key, (int, float), "a number"))
        if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
            bound = "above 0" if above_zero else "at least 0"
            raise self.error(key, f"is {value:g}; it must be finite and {bound}")
        return value

    def array(self, key: str) -> list[Any]:
        return list(self.get(key, list, "a list"))

    def table(self, key: str) -> TomlTable:
        return TomlTable(self.get(key, dict, "a table"), f"{self.prefix}{key}.", self.path)

    def tables(self, key: str) -> dict[str, TomlTable]:
        inner = self.table(key)
        return {name: inner.table(name) for name in inner.values}

    def numbers(self, key: str) -> dict[str, float]:
        """A table of numbers above 0."""
        inner = self.table(key)
        return {name: inner.number(name, above_zero=True) for name in inner.values}

    def nothing_else(self) -> None:
        """Refuse keys that nobody asked for: a misspelt one would go unnoticed."""
        unknown = [key for key in self.values if key not in self.seen]
        if unknown:
            raise self.error(
                unknown[0], f"is unknown; {known_names(unknown[0], sorted(self.seen))}"
            )

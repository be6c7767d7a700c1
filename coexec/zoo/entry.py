"""What the zoo's tables hold: a model that can be built, with what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

Builder = Callable[..., ir.Model]
"""``(batch: int | None, classes: int, *, seed: int, ...) -> ir.Model``, a pure function."""


@dataclass(frozen=True)
class ZooEntry:
    """A model of the zoo; ``input_shape`` is that of ``x`` by default, without the batch."""

    description: str
    input_shape: tuple[int, ...]
    builder: Builder

    @property
    def options(self) -> Mapping[str, Any]:
        """Keyword options of the builder beside batch and classes, with their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def classes(self) -> int:
        """Number of classes by default."""
        default = inspect.signature(self.builder).parameters["classes"].default
        assert isinstance(default, int)
        return default

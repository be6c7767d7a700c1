"""Boosted regression trees as plain arrays, which are kept on disk beside the times they are from.

To train them takes seconds, to read them milliseconds. Predictions are to the last bit those of the
scikit-learn model that was trained: the same comparisons in float32, the same order of sums.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from coexec.base.cache import keep
from coexec.core.types import Array

log = logging.getLogger(__name__)
LEAF = -1


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees of a row each: by node the ``feature`` compared with a ``threshold``, or a ``value``.

    A node without children has :data:`LEAF` on its ``left``. ``start`` is added to what all trees
    say, each ``rate`` times. ``errors`` are those of logarithms that were left out in training.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    value: Array
    start: Array
    rate: Array
    errors: Array

    @classmethod
    def of(cls, model: Any, errors: Array) -> Self:
        """The trees of a trained scikit-learn ``GradientBoostingRegressor``."""
        trees = [tree.tree_ for tree in model.estimators_[:, 0]]
        most = max(tree.node_count for tree in trees)

        def rows(name: str, dtype: str) -> Array:
            found = np.full((len(trees), most), LEAF, dtype)
            for row, tree in zip(found, trees, strict=True):
                row[: tree.node_count] = np.reshape(getattr(tree, name), -1)
            return found

        return cls(
            rows("feature", "int32"),
            rows("threshold", "float64"),
            rows("children_left", "int32"),
            rows("children_right", "int32"),
            rows("value", "float64"),
            np.float64(model.init_.constant_.ravel()[0]).reshape(1),
            np.float64(model.learning_rate).reshape(1),
            errors,
        )

    def predict(self, row: Sequence[float]) -> float:
        """What the trees say together of a row of features."""
        features, at = np.array(row, np.float32), np.zeros(len(self.left), np.int64)
        while True:
            left = self.left[self._trees, at]
            inner = left != LEAF
            if not inner.any():
                break
            smaller = features[self.feature[self._trees, at]] <= self.threshold[self._trees, at]
            at = np.where(inner, np.where(smaller, left, self.right[self._trees, at]), at)
        total = float(self.start[0])
        for share in self.rate[0] * self.value[self._trees, at]:
            total += float(share)
        return total

    def save(self, path: Path, digest: str) -> None:
        """Keep them; ``digest`` is of what they were trained on, and by what."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        keep(path, lambda file: np.savez(file, digest=np.array(digest), **arrays))

    @classmethod
    def load(cls, path: Path, digest: str) -> Self | None:
        """What was kept; none if it was trained on something else, or cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["digest"]) != digest:
                    return None
                return cls(*(kept[field.name] for field in fields(cls)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.info("%s cannot be read (%s): trained again", path, error)
            return None

    @cached_property
    def _trees(self) -> Array:
        return np.arange(len(self.left))

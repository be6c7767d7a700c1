"""Boosted regression trees as plain arrays: trained by scikit-learn, evaluated by NumPy alone.

A tree is walked from its root: left where the feature is at most the threshold, until a leaf, whose
value counts. The prediction is the sum over trees and a constant. Source: Friedman, "Greedy
function approximation: a gradient boosting machine" (2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 5
"""Significant digits of thresholds and values in files: far below the error of any fit."""
LEAF = -1


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees one after the other; ``feature`` is -1 at a leaf.

    ``left`` and ``right`` are node numbers, ``roots`` those of the trees' first nodes.
    """

    constant: float
    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]

    def predict(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """One number for each row of features, shape (rows, features)."""
        node = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        lines = np.arange(len(rows))[:, None]
        while (inner := self.feature[node] != LEAF).any():
            goes_left = rows[lines, self.feature[node]] <= self.threshold[node]
            following = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(inner, following, node)
        total: NDArray[np.float64] = self.constant + self.value[node].sum(axis=1)
        return total

    def scaled(self, share: float) -> Trees:
        """So many times what these predict."""
        return replace(self, constant=share * self.constant, value=share * self.value)

    def to_json(self) -> dict[str, Any]:
        """Inner nodes have a feature, a threshold and two children, leaves a value."""
        leaf = self.feature == LEAF
        numbers = np.where(leaf, self.value, self.threshold)
        return {
            "constant": _rounded(self.constant),
            "roots": self.roots.tolist(),
            "feature": self.feature.tolist(),
            "number": [_rounded(number) for number in numbers],
            # A node's left child follows it: only the right one has to be written.
            "right": self.right.tolist(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Trees:
        feature = np.asarray(record["feature"], np.int32)
        numbers = np.asarray(record["number"], np.float64)
        return cls(
            float(record["constant"]),
            np.asarray(record["roots"], np.int32),
            feature,
            numbers,
            np.arange(1, len(feature) + 1, dtype=np.int32),
            np.asarray(record["right"], np.int32),
            np.where(feature == LEAF, numbers, 0.0),
        )

    @classmethod
    def of_sklearn(cls, model: Any) -> Trees:
        """From a fitted ``GradientBoostingRegressor`` with ``init="zero"`` (one output)."""
        nodes: list[tuple[int, float, int, float]] = []
        roots = []
        for (estimator,) in model.estimators_:
            roots.append(len(nodes))
            _append(nodes, estimator.tree_, 0, model.learning_rate)
        columns = list(zip(*nodes, strict=True))
        return cls(
            0.0,
            np.asarray(roots, np.int32),
            np.asarray(columns[0], np.int32),
            np.asarray(columns[1], np.float64),
            np.arange(1, len(nodes) + 1, dtype=np.int32),
            np.asarray(columns[2], np.int32),
            np.asarray(columns[3], np.float64),
        )


def _append(
    nodes: list[tuple[int, float, int, float]], tree: Any, number: int, scale: float
) -> None:
    """Append a node and what is below it, left child first."""
    left, right = int(tree.children_left[number]), int(tree.children_right[number])
    if left == right:  # both absent
        nodes.append((LEAF, 0.0, 0, scale * float(tree.value[number, 0, 0])))
        return
    place = len(nodes)
    nodes.append((LEAF, 0.0, 0, 0.0))
    _append(nodes, tree, left, scale)
    second = len(nodes)
    _append(nodes, tree, right, scale)
    nodes[place] = (int(tree.feature[number]), float(tree.threshold[number]), second, 0.0)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")

"""Regressions of costs as arrays: the same predictions, kept until there are other times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from coexec.core.machine import Rates
from coexec.cost import fitted
from coexec.cost.distribution import Distribution
from coexec.cost.fitted import fit
from coexec.cost.forest import Forest
from coexec.cost.store import Entry

Samples = Sequence[tuple[tuple[float, ...], float]]
RATES = Rates({"float32": 50.0}, 20.0, 3.0, 5.0)


def entries(count: int, slower: float = 1.0) -> dict[str, Entry]:
    rng = np.random.default_rng(0)
    found = {}
    for number in range(count):
        sizes = rng.uniform(5, 20, 13)
        features = (*sizes[:9].tolist(), 9.0, *sizes[:2].tolist(), 32.0)
        time = Distribution.exactly(float(np.exp(sizes[0] / 4) + sizes[1]) * slower)
        found[f"{number}"] = Entry(time, ("Conv", "Gemm")[number % 2], features)
    return found


def test_trees_as_arrays_predict_what_the_trained_model_does_to_the_last_bit() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(0)
    rows = np.round(rng.standard_normal((300, 6)), 2)
    model = ensemble.GradientBoostingRegressor(n_estimators=40, max_depth=4, random_state=0)
    model.fit(rows, rows[:, 0] ** 2 + np.sin(rows[:, 1]))
    forest = Forest.of(model, np.zeros(1))
    others = [*rows, *rng.standard_normal((100, 6))]
    assert [forest.predict(row) for row in others] == model.predict(np.array(others)).tolist()


def test_a_regression_is_trained_once_for_the_same_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "costs.trees.npz"
    trained, train = [], fitted._trained

    def counted(samples: Samples) -> Forest:
        trained.append(len(samples))
        return train(samples)

    monkeypatch.setattr(fitted, "_trained", counted)
    found = []
    for times in (entries(60), entries(60), entries(60, 2.0), entries(60)):
        fitted._fitted.cache_clear()
        found.append(fit(times, RATES, path))
    assert len(trained) == 3
    first, again, *_ = found
    assert first is not None
    assert again is not None
    assert (first.error, first.sigma, first.operators) == (
        again.error,
        again.sigma,
        again.operators,
    )
    for entry in entries(60).values():
        row = (0.0, *entry.features)
        assert first.model.predict(row) == again.model.predict(row)


def test_what_cannot_be_read_is_trained_again(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "costs.trees.npz"
    path.write_bytes(b"PK no such thing")
    fitted._fitted.cache_clear()
    assert fit(entries(60), RATES, path) is not None
    assert Forest.load(path, "another") is None
    assert path.stat().st_size > 1000

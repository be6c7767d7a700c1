"""Steps that break off half way: what may go on, and what has to be loaded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import CheckpointError, NonFiniteLoss
from coexec.core.types import Array
from coexec.steps.gated import Outcome, run_gated
from coexec.training import trainer as training
from tests.runtimes import THOROUGH

SAMPLES, FEATURES, CLASSES = 8, 5, 3
LABELS = np.arange(SAMPLES) % CLASSES
PARTS = [1, 4]


def learner(parts: int, processor: str = "reference") -> coexec.Trainer:
    model = coexec.load(zoo.build("mlp", classes=CLASSES, sizes=(FEATURES, 8)))
    how: dict[str, Any] = {"micro_batches": parts}
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.3, momentum=0.9), [processor], **how)


def break_off(monkeypatch: pytest.MonkeyPatch, run: int, *, behind: bool) -> None:
    """Ctrl-C in front of a gated run, counted from now, or just behind it."""
    runs = 0

    def broken(*arguments: Any) -> Outcome:
        nonlocal runs
        runs += 1
        if runs == run and not behind:
            raise KeyboardInterrupt
        outcome = run_gated(*arguments)
        if runs == run:
            raise KeyboardInterrupt
        return outcome

    monkeypatch.setattr(training, "run_gated", broken)


def assert_same_bits(one: coexec.Trainer, other: coexec.Trainer) -> None:
    expected, found = one.state(), other.state()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def x(rng: np.random.Generator) -> dict[str, Array]:
    return {"x": rng.standard_normal((SAMPLES, FEATURES), np.float32)}


@pytest.mark.parametrize("parts", PARTS)
def test_a_step_that_broke_off_before_anything_changed_may_be_made_again(
    parts: int, x: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = learner(parts), learner(parts)
    for each in (whole, broken):
        each.step(x, LABELS)
    break_off(monkeypatch, 1, behind=False)
    with pytest.raises(KeyboardInterrupt):
        broken.step(x, LABELS)
    assert broken.step(x, LABELS) == whole.step(x, LABELS)
    assert_same_bits(whole, broken)


@pytest.mark.parametrize("runtime", ["reference", THOROUGH[0]])
@pytest.mark.parametrize(("parts", "run", "behind"), [(1, 1, True), (4, 3, False), (4, 4, True)])
def test_states_of_a_step_that_broke_off_half_way_are_not_used(
    runtime: str,
    parts: int,
    run: int,
    behind: bool,
    x: dict[str, Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parameters are half new, or sums hold a part of a batch; loading a state mends both."""
    whole, broken = learner(parts, runtime), learner(parts, runtime)
    for each in (whole, broken):
        each.step(x, LABELS)
    kept = broken.state()
    with monkeypatch.context() as patch:
        break_off(patch, run, behind=behind)
        with pytest.raises(KeyboardInterrupt):
            broken.step(x, LABELS)
    uses: list[Callable[[], object]] = [
        lambda: broken.step(x, LABELS),
        lambda: broken.predict(x),
        broken.state,
        lambda: broken.save(tmp_path / "half.onnx"),
    ]
    for use in uses:
        with pytest.raises(CheckpointError, match=r"step 1 broke off .* Load a state"):
            use()
    assert not list(tmp_path.iterdir())
    broken.load_state(kept, 1)
    assert broken.step(x, LABELS) == whole.step(x, LABELS)
    assert_same_bits(whole, broken)


def test_parts_with_bad_numbers_leave_the_step_whole(x: dict[str, Array]) -> None:
    """The first parts were good, and are in no sum any more."""
    whole, broken = learner(4), learner(4)
    bad = {"x": x["x"].copy()}
    bad["x"][-1] = np.nan
    with pytest.raises(NonFiniteLoss):
        broken.step(bad, LABELS)
    assert broken.step(x, LABELS) == whole.step(x, LABELS)
    assert_same_bits(whole, broken)

"""Plans within a budget that another process finds: the same as here, and nothing left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import MemoryBudgetError
from coexec.base.knobs import SEARCH_APART
from coexec.budget import budgeted
from coexec.budget.apart import LEAST_TENSOR_BYTES, MODEL, WEIGHTS, _write, worth_a_process
from coexec.budget.budgeted import BudgetedSteps
from coexec.budget.settings import Lowered, MemoryPlan, Setting
from coexec.core.types import Array
from coexec.frontend import load
from tests.runtimes import THOROUGH

BATCH = 16
DATA = {"x": np.zeros((BATCH, 6, 100), np.float32)}


class OwnLoss(SoftmaxCrossEntropy):
    """A loss that another process cannot find."""

    __qualname__ = "nowhere.OwnLoss"


def trainer(memory: str | int, loss: SoftmaxCrossEntropy | None = None) -> coexec.Trainer:
    model = coexec.load(zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(model, loss or SoftmaxCrossEntropy(), how, [THOROUGH[0]], memory=memory)


def no_search(steps: BudgetedSteps, request: object) -> MemoryPlan:
    raise AssertionError(f"{request} is searched for in this process")


def test_another_process_finds_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trainer("64MiB").plan_memory(DATA)
    assert plain is not None
    budget = int(0.7 * plain.plain_bytes)
    here = trainer(budget).plan_memory(DATA)
    monkeypatch.setenv(SEARCH_APART.name, "1")
    monkeypatch.setattr(BudgetedSteps, "search", no_search)
    assert trainer(budget).plan_memory(DATA) == here


def test_what_was_lowered_to_look_at_a_plan_is_gone_before_it_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[weakref.ref[ir.Graph]] = []
    lower = BudgetedSteps.lower

    def lowered(steps: BudgetedSteps, setting: Setting, arrays: Mapping[str, Array]) -> Lowered:
        found = lower(steps, setting, arrays)
        looked_at.append(weakref.ref(found.graph))
        return found

    monkeypatch.setattr(BudgetedSteps, "lower", lowered)
    monkeypatch.setenv(SEARCH_APART.name, "1")
    gc.disable()  # nothing else lets cycles go
    try:
        trainer("64MiB").plan_memory(DATA)
        assert [graph() for graph in looked_at] == [None]
    finally:
        gc.enable()


def test_a_refusal_of_another_process_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryBudgetError) as here:
        trainer("100KiB").plan_memory(DATA)
    monkeypatch.setenv(SEARCH_APART.name, "1")
    monkeypatch.setattr(BudgetedSteps, "search", no_search)
    with pytest.raises(MemoryBudgetError) as apart:
        trainer("100KiB").plan_memory(DATA)
    assert str(apart.value) == str(here.value)
    assert apart.value.least_bytes == here.value.least_bytes


def test_what_another_process_cannot_search_for_is_searched_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SEARCH_APART.name, "1")
    plan = trainer("64MiB", OwnLoss()).plan_memory(DATA)
    assert plan is not None
    assert plan.peak_bytes == plan.plain_bytes
    assert "no other process searches for a plan" in caplog.text


def test_a_plan_that_takes_other_bytes_here_is_searched_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = trainer("64MiB").plan_memory(DATA)
    assert here is not None
    other = replace(here, peak_bytes=here.peak_bytes - 1)
    monkeypatch.setenv(SEARCH_APART.name, "1")
    monkeypatch.setattr(budgeted, "plan_apart", lambda _model, _request: other)
    assert trainer("64MiB").plan_memory(DATA) == here
    assert "once more" in caplog.text


def test_large_weights_go_as_zeros_that_take_no_room(tmp_path: Path) -> None:
    model = coexec.load(zoo.build("lenet5"))
    _write(model, tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_blocks == 0
    sizes = {name: v.const_value.nbytes for name, v in model.graph.initializers.items()}  # type: ignore[union-attr]
    kept = sum(nbytes for nbytes in sizes.values() if nbytes < LEAST_TENSOR_BYTES)
    assert (tmp_path / MODEL).stat().st_size < kept + 20_000 < sum(sizes.values())
    read = load(ir.load(tmp_path / MODEL))
    for name, value in model.graph.initializers.items():
        found, own = read.graph.initializers[name].const_value, value.const_value
        assert found is not None
        assert own is not None
        assert (found.shape, found.dtype) == (own.shape, own.dtype)
        small = own.nbytes < LEAST_TENSOR_BYTES
        np.testing.assert_array_equal(found.numpy(), own.numpy() if small else 0, err_msg=name)


def test_small_models_are_worth_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    model = coexec.load(zoo.build("sensor_cnn"))
    nodes = len(model.graph)
    for least, worth in ((nodes, True), (nodes + 1, False), (0, False)):
        monkeypatch.setenv(SEARCH_APART.name, str(least))
        assert worth_a_process(model) is worth

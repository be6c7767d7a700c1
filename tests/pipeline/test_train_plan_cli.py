"""``coexec train`` follows plans, from a file or made on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import DeviceMemoryError
from coexec.cli import verified_plans
from coexec.cli.train_plan import kept_plan, plan_record, plan_text, planned
from coexec.core.machine import Rates
from coexec.core.plan import Plan
from coexec.core.processor import Processor, ProcessorSpec
from coexec.planning.planner import PlanOptions
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.steps.builder import Recipe
from coexec.training.data import Dataset
from coexec.training.trainer import Trainer
from tests.known_costs import know
from tests.pipeline.command import coexec as command
from tests.pipeline.small import parameters, write_data, write_network

BATCH = 8


def test_the_command_line_plans_and_trains(tmp_path: Path) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz")
    plan = tmp_path / "plan.onnx"
    common = ("--batch-size", str(BATCH), "--json")
    planned = command(
        *("plan", model, "--train", "--processors", "opencl,reference", "--budget", "0"),
        *("--policy", "heft", "--save", plan, *common),
    )
    assert planned.record["policy"] == "heft"
    training = ("train", model, "--data", data, "--epochs", "2", *common)
    one = command(*training, "-p", "reference", "--out", tmp_path / "one.onnx").record
    two = command(*training, "--plan", plan, "--out", tmp_path / "two.onnx").record
    assert two["plan"]["policy"] == "heft"
    assert two["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    for name, raw in parameters(tmp_path / "one.onnx").items():
        found = np.frombuffer(parameters(tmp_path / "two.onnx")[name], np.float32)
        np.testing.assert_allclose(found, np.frombuffer(raw, np.float32), rtol=1e-3, atol=1e-4)
    there = command(*training, "--processors", "opencl,reference", "--budget", "0").record
    assert there["plan"]["processors"]
    assert there["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    adapted = command(*training, "--processors", "opencl,reference", "--budget", "0", "--adapt")
    assert adapted.record["loss_last"] == pytest.approx(one["loss_last"], rel=1e-3)
    assert isinstance(adapted.record["adaptations"], list)
    assert "--adapt needs" in command(*training, "--adapt").error["error"]
    refused = command(*training, "--plan", plan, "-p", "reference")
    assert "give one of" in refused.error["error"]


def test_a_resumed_training_follows_the_plan_that_it_began_with(tmp_path: Path) -> None:
    """Bit by bit, though by now another one may be thought to be faster."""
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz")
    how: list[str | Path] = [
        "train",
        model,
        "--data",
        data,
        "--batch-size",
        str(BATCH),
        "--json",
        "--budget",
        "0",
    ]
    several, whole, halves = ("--processors", "opencl,reference"), *map(tmp_path.joinpath, "wh")
    command(*how, *several, "--policy", "heft", "--epochs", "2", "--out", whole)
    kept: list[str | Path] = ["--checkpoint", tmp_path / "c", "--out", halves]
    command(*how, *several, *kept, "--policy", "heft", "--epochs", "1")
    more = [*kept, "--resume", "--epochs", "2"]
    resumed = command(*how, *several, *more, "--policy", "batch_parallel")
    assert resumed.record["plan"]["policy"] == "heft"
    assert resumed.record["notes"] == ["resumed after step 6"]
    assert "plan: heft, that of the training so far" in resumed.err
    assert parameters(halves) == parameters(whole)


class OnCore(ReferenceProcessor):
    """The reference under another name, on silicon of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def describe(self) -> ProcessorSpec:
        return replace(super().describe(), resources=(self.name,))


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    """On two processors whose rates are known."""
    known = dict.fromkeys(("one", "two"), Rates({"float32": 100.0}, 10.0, 5.0, 20.0))
    know(monkeypatch, tmp_path, known.__getitem__)
    processors: dict[str, Processor] = {name: OnCore(name) for name in known}
    model = zoo.build("mlp", batch=6, sizes=(8, 4), classes=3)
    return Trainer(model, Recipe(SoftmaxCrossEntropy(), SGD(0.1)), processors)


def test_a_plan_is_kept_for_the_processors_that_it_names(trainer: Trainer, tmp_path: Path) -> None:
    divided = PlanOptions("batch_parallel", 0.0)
    taken = planned(trainer, DATA, 6, divided, (tmp_path, False), adapt=False)[0]
    assert taken.followed is not None
    assert taken.followed.batch.keys() == {"one", "two"}
    again = planned(trainer, DATA, 6, AT_ONCE, (tmp_path, True), adapt=False)[0]
    assert again.followed is not None
    assert again.followed.batch == taken.followed.batch
    one = {"one": trainer.processors["one"]}
    assert kept_plan(Trainer(trainer.model, trainer.recipe, one), tmp_path) is None
    assert kept_plan(trainer, tmp_path / "elsewhere") is None
    assert kept_plan(trainer, None) is None


DATA = Dataset({"x": np.ones((9, 8), np.float32)}, np.arange(9) % 3)
AT_ONCE = PlanOptions("auto", seconds=1e-6)
"""No call is measured: time is over when the first is to be. Plans run a few times each."""


def test_auto_runs_steps_on_each_processor_before_it_takes_a_plan(trainer: Trainer) -> None:
    taken, tried, _ = planned(trainer, DATA, 6, AT_ONCE, adapt=False)
    assert {"only one", "only two"} <= tried.keys()
    assert taken.followed is not None
    record = plan_record(taken.followed, tried)
    assert record is not None
    assert record["policy"] in tried == record["tried_ms"]
    assert "ms a step when it was tried" in plan_text(record)
    assert (taken.steps, trainer.steps) == (0, 0)


def test_a_plan_of_other_batches_says_for_which_it_was_made() -> None:
    plan = Plan({"n": "one"}, policy="batch_parallel", predicted_us=600, batch={"one": 4, "two": 2})
    other, same = plan_record(plan, {}, (), 3), plan_record(plan, {}, (), 6)
    assert other is not None
    assert same is not None
    assert (other["planned_for"], same["planned_for"]) == (6, None)
    text = "batch_parallel: 4 samples on one, 2 samples on two, 0.60 ms a step predicted"
    assert plan_text(same) == text
    assert plan_text(other) == f"{text}, planned for batches of 6"


def test_plans_that_cannot_be_tried_are_followed_and_it_is_said(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise DeviceMemoryError("one: no room")

    monkeypatch.setattr(verified_plans, "verify_training", full)
    taken, tried, _ = planned(trainer, DATA, 6, AT_ONCE, adapt=False)
    assert tried == {}
    assert taken.followed is not None
    assert taken.followed.predicted_us is not None
    assert "plans were not run before one was taken: one: no room" in capsys.readouterr().err

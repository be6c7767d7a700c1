"""Samples of an epoch that do not fill a batch: left out, or a step of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import CoexecError
from coexec.core.types import Array
from coexec.training.data import Dataset, batches, epoch_order
from coexec.training.fit import FitOptions, Progress, fit
from tests.pipeline.command import coexec as command
from tests.pipeline.small import FEATURES, arrays, network, parameters, write_data, write_network
from tests.runtimes import THOROUGH

BATCH, SAMPLES = 8, 21
DATA = arrays(SAMPLES)
TRAIN = Dataset({"x": DATA["x"]}, DATA["labels"])
KEEP = FitOptions(2, BATCH, last_batch="keep")


def trainer(
    processor: str = THOROUGH[0], shapes: dict[str, tuple[int, ...]] | None = None, **options: Any
) -> coexec.Trainer:
    model = coexec.load(network(), shapes)
    how = SGD(0.05, momentum=0.9)
    return coexec.Trainer(model, SoftmaxCrossEntropy(), how, [processor], **options)


def by_hand(learner: coexec.Trainer, epochs: int) -> dict[str, Array]:
    for epoch in range(epochs):
        order = epoch_order(SAMPLES, 0, epoch)
        for start in range(0, SAMPLES, BATCH):
            rows = order[start : start + BATCH]
            learner.step({"x": DATA["x"][rows]}, DATA["labels"][rows])
    return learner.state()


def test_every_sample_of_an_epoch_is_seen_once() -> None:
    kept = [batch.truth for batch in batches(TRAIN, BATCH, 0, 0, 0, "keep")]
    assert [len(each) for each in kept] == [8, 8, 5]
    assert [len(each.truth) for each in batches(TRAIN, BATCH, 0, 0, 0)] == [8, 8]
    assert sorted(np.concatenate(kept)) == sorted(DATA["labels"])
    assert [len(each.truth) for each in batches(TRAIN, BATCH, 0, 0, 2, "keep")] == [5]


def test_a_batch_that_is_kept_is_a_step_of_its_own() -> None:
    learner, seen = trainer(), []

    def observe(progress: Progress) -> None:
        seen.append(progress.total_steps)

    assert fit(learner, TRAIN, None, KEEP, observe).steps == 6
    assert seen == [6] * 6
    other = trainer()
    for name, array in by_hand(other, 2).items():
        np.testing.assert_array_equal(learner.state()[name], array, err_msg=name)


def test_memory_of_both_programs_is_counted_and_the_larger_one_told() -> None:
    one, both = trainer(), trainer()
    fit(one, TRAIN, None, FitOptions(1, BATCH))
    fit(both, TRAIN, None, KEEP)
    assert both.peak_bytes > one.peak_bytes
    (x,) = (v for v in both.step_graph.model.graph.inputs if v.name == "x")
    assert x.shape is not None
    assert tuple(x.shape.dims) == (BATCH, FEATURES)
    assert both.program.peak_bytes == one.program.peak_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": 2}, "5 samples cannot be kept: it does not split into 2 micro-batches"),
        ({"shapes": {"x": (BATCH, FEATURES)}}, "5 samples cannot be kept: the model has a fixed"),
        ({"memory": "1MiB"}, "5 samples cannot be kept: the budget of memory is for one program"),
    ],
    ids=["micro-batches", "fixed", "memory"],
)
def test_what_has_no_step_for_it_is_refused_before_the_first_one(
    options: dict[str, Any], message: str
) -> None:
    learner = trainer(**options)
    with pytest.raises(CoexecError, match=message):
        fit(learner, TRAIN, None, KEEP)
    assert learner.steps == 0
    whole = Dataset({"x": DATA["x"][:16]}, DATA["labels"][:16])
    assert fit(learner, whole, None, KEEP).steps == 4  # nothing is left over


def test_the_command_keeps_it_and_resumes_exactly(tmp_path: Path) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz", SAMPLES)
    how = ["train", str(model), "--data", str(data), "--batch-size", str(BATCH), "--json"]
    how += ["-p", "reference", "--schedule", "cosine"]
    whole, halves = tmp_path / "whole.onnx", tmp_path / "halves.onnx"
    assert command(*how, "--epochs", "2").record["steps"] == 4
    how += ["--epochs", "2", "--last-batch", "keep"]
    assert command(*how, "--out", str(whole)).record["steps"] == 6
    kept = ["--checkpoint", str(tmp_path / "c"), "--checkpoint-every", "2"]
    command(*how, *kept, "--out", str(halves))
    (tmp_path / "c" / "checkpoint-000000006.npz").unlink()
    record = command(*how, *kept, "--out", str(halves), "--resume").record
    assert record["notes"] == ["resumed after step 4"]
    assert parameters(halves) == parameters(whole)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["half"], "--last-batch 'half' is unknown; known: drop, keep"),
        (["keep", "--memory", "1MiB"], "--plan, --processors and --memory are for one size"),
    ],
    ids=["unknown", "memory"],
)
def test_the_command_refuses_what_has_no_meaning(
    more: list[str], message: str, tmp_path: Path
) -> None:
    model, data = write_network(tmp_path / "m.onnx"), write_data(tmp_path / "d.npz", SAMPLES)
    done = command("train", str(model), "--data", str(data), "--json", "--last-batch", *more)
    assert message in done.error["error"]

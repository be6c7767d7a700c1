"""A training goes on with the kernels that it began with, or says that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coexec
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import UsageError
from coexec.core.types import Array, OpCall
from coexec.processors.opencl.choose import Choice, Chooser, by_default
from coexec.processors.opencl.family import DeviceFacts, KernelFamily
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.tuning.key import key_of
from coexec.processors.opencl.tuning.lookup import TunedChooser
from coexec.processors.opencl.tuning.store import Entry, source_digest
from coexec.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, Result, fit
from tests.pipeline.small import arrays, network
from tests.runtimes import DRIVERS, THOROUGH, open_opencl

BATCH = 8
FOUND = arrays(40)
DATA = Dataset({"x": FOUND["x"]}, FOUND["labels"])
KEPT = "kernels are chosen as when this training began"


@pytest.fixture(params=DRIVERS)
def processor(request: pytest.FixtureRequest) -> Iterator[OpenCLProcessor]:
    """One without tuned values, and afterwards as it was."""
    opened = open_opencl(request.param)
    before, opened.choose = opened.choose, TunedChooser(())
    yield opened
    opened.choose = before


def trainer(*specs: str) -> coexec.Trainer:
    model = coexec.load(network())
    return coexec.Trainer(model, SoftmaxCrossEntropy(), SGD(0.05, momentum=0.9), specs)


def train(learner: coexec.Trainer, epochs: int, folder: Path | None, **options: Any) -> Result:
    resume = folder is not None and folder.exists()
    how = FitOptions(epochs, BATCH, checkpoint=folder, resume=resume, **options)
    return fit(learner, DATA, None, how)


def all_naive(name: str) -> TunedChooser:
    """As if the naive variants had been found the fastest for all that a step computes."""
    calls: list[tuple[KernelFamily, OpCall, DeviceFacts]] = []

    def noting(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Choice:
        chosen = by_default(family, call, facts)
        if chosen.variant is not family.naive:
            calls.append((family, call, facts))
        return chosen

    opened = open_opencl(name)
    before, opened.choose = opened.choose, noting
    learner = trainer(name)
    learner.step({"x": FOUND["x"][:BATCH]}, FOUND["labels"][:BATCH])
    opened.choose = before
    return TunedChooser([[entry(*each) for each in calls]])


def entry(family: KernelFamily, call: OpCall, facts: DeviceFacts) -> Entry:
    naive = family.naive
    values = naive.defaults(call, facts)
    kernels = Choice(naive, values).lower(call, facts).calls
    sources = {kernel.family: source_digest(kernel.family) for kernel in kernels}
    return Entry(key_of(call), naive.name, values, 2.0, 1.0, "2026-01-01", sources)


def assert_same(one: dict[str, Array], other: dict[str, Array]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


def states(name: str, choose: Chooser, epochs: int = 3) -> dict[str, Array]:
    """After a training in one go with these kernels."""
    open_opencl(name).choose = choose
    learner = trainer(name)
    train(learner, epochs, None)
    return learner.state()


def test_what_was_tuned_meanwhile_is_left_to_others(
    processor: OpenCLProcessor, tmp_path: Path
) -> None:
    name, folder = processor.name, tmp_path / "c"
    tuned, untuned = all_naive(name), TunedChooser(())
    expected = states(name, untuned)
    other = states(name, tuned)
    assert any(not np.array_equal(other[n], expected[n]) for n in expected)
    processor.choose = untuned
    train(trainer(name), 1, folder)
    processor.choose = tuned  # by another process, in between
    resumed = trainer(name)
    notes = train(resumed, 3, folder).notes
    assert notes[0].startswith(f"{name}: {KEPT}")
    assert notes[1:] == ("resumed after step 5",)
    assert_same(expected, resumed.state())


def test_tuned_values_that_were_lost_are_those_of_the_checkpoint(
    processor: OpenCLProcessor, tmp_path: Path
) -> None:
    name, folder = processor.name, tmp_path / "c"
    tuned = all_naive(name)
    expected = states(name, tuned)
    train(trainer(name), 1, folder)
    processor.choose = TunedChooser(())
    resumed = trainer(name)
    assert KEPT in train(resumed, 3, folder).notes[0]
    assert_same(expected, resumed.state())


def changed(folder: Path, **changes: Any) -> None:
    """Have the newest checkpoint say something else of its training."""
    newest = load_checkpoint(max(folder.glob("*.npz")))
    save_checkpoint(folder, replace(newest, progress={**newest.progress, **changes}))


def progress(folder: Path) -> dict[str, Any]:
    newest: Checkpoint = load_checkpoint(max(folder.glob("*.npz")))
    return dict(newest.progress)


def test_kernels_that_are_there_no_more_are_told(
    processor: OpenCLProcessor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, folder = processor.name, tmp_path / "c"
    train(trainer(name), 1, folder)
    computed = progress(folder)["computed"]
    (program,) = computed
    product = next(node for node in computed[program] if node.startswith("fc1"))
    was = {**computed[program], product: "magic SIZE=7 (01234567)", "gone": "twice"}
    changed(folder, computed={program: was})
    notes = train(trainer(name), 2, folder).notes
    assert notes[0] == "resumed after step 5"
    count = len(computed[program])
    assert notes[1].startswith(f"{program}: 1 of {count} kernels are others than before")
    assert f"{product}: {computed[program][product]}, was magic SIZE=7" in notes[1]
    assert "gone is gone" in notes[1]
    assert notes[1] in caplog.text
    assert len(notes) == 2  # once, and not after each step
    assert progress(folder)["computed"] == computed


def test_steps_of_another_form_are_told(tmp_path: Path) -> None:
    """As if a budget had divided the batches before, and did not now."""
    folder = tmp_path / "c"
    train(trainer("reference"), 1, folder)
    ((program, kernels),) = progress(folder)["computed"].items()
    changed(folder, computed={"accumulate 4x12": kernels, "update": {}})
    (note,) = train(trainer("reference"), 2, folder).notes[1:]
    assert note == (
        f"{program} is no program of the training before the interruption (accumulate 4x12, "
        "update), so that last bits may differ"
    )


def test_another_driver_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    train(trainer("reference"), 1, folder)
    devices = progress(folder)["devices"]
    changed(folder, devices={"reference": "an abacus, wood"})
    found = train(trainer("reference"), 2, folder).notes[1]
    assert found == (
        f"reference is {devices['reference']}, and was an abacus, wood: last bits may differ"
    )


def test_another_processor_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    train(trainer("reference"), 1, folder)
    note = train(trainer(THOROUGH[0]), 2, folder).notes[1]
    assert f"on {THOROUGH[0]}: " in note
    assert "was not there" in note


def test_a_checkpoint_without_a_record_is_resumed_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    train(trainer("reference"), 1, folder)
    known = progress(folder)
    for key in ("computed", "devices", "choices"):
        del known[key]
    newest = load_checkpoint(max(folder.glob("*.npz")))
    save_checkpoint(folder, replace(newest, progress=known))
    assert train(trainer("reference"), 2, folder).notes == ("resumed after step 5",)


def test_programs_that_are_made_late_are_compared_when_they_are(tmp_path: Path) -> None:
    """Of a smaller last batch; what is not made again before the next checkpoint is kept."""
    folder = tmp_path / "c"
    how = {"last_batch": "keep", "checkpoint_every": 4}
    data = Dataset({"x": FOUND["x"][:20]}, FOUND["labels"][:20])  # 8, 8, 4
    options = FitOptions(2, BATCH, checkpoint=folder, **how)  # type: ignore[arg-type]
    fit(trainer("reference"), data, None, options)
    record = progress(folder)["computed"]
    assert len(record) == 2
    smaller = next(name for name in record if "4x12" in name)
    changed(folder, computed={**record, smaller: {"y": "by hand"}})
    notes = fit(trainer("reference"), data, None, replace(options, epochs=3, resume=True)).notes
    assert notes[0] == "resumed after step 6"
    assert len(notes) == 2
    assert notes[1].startswith(f"{smaller}: ")
    assert progress(folder)["computed"].keys() == record.keys()


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[[{"operator": 1}]]'])
def test_choices_that_are_none_are_refused(text: str, processor: OpenCLProcessor) -> None:
    with pytest.raises(UsageError, match=f"what {processor.name} chooses by"):
        processor.choose_by(text)


def test_processors_without_choices_take_none() -> None:
    reference = trainer("reference").processors["reference"]
    assert reference.choices() == ""
    with pytest.raises(UsageError, match="has nothing to choose by"):
        reference.choose_by("[]")

"""A training that is killed, interrupted or whose checkpoints are damaged resumes bit by bit."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pytest

import coexec as api
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.training.data import Dataset
from coexec.training.fit import FitOptions, Result, fit
from tests.pipeline.command import Done, coexec, finish, start
from tests.pipeline.small import arrays, network, parameters, write_data, write_network
from tests.runtimes import THOROUGH

BATCH, SAMPLES = 8, 52
PER_EPOCH = SAMPLES // BATCH
EVERY = 7
ENDLESS = 10**6
"""Epochs of a training that is going to be killed: it cannot end before."""
SECONDS = 180.0


class Training:
    """One training with its files; every run of it writes to a file of its own."""

    def __init__(self, folder: Path, *options: str, dropout: bool = False) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.checkpoints = folder / "checkpoints"
        self.options = options
        write_network(folder / "model.onnx", dropout=dropout)
        write_data(folder / "data.npz", SAMPLES)

    def arguments(self, out: str, *more: str, epochs: int) -> list[str]:
        return [
            *("train", str(self.folder / "model.onnx"), "--data", str(self.folder / "data.npz")),
            *("--epochs", str(epochs), "--batch-size", str(BATCH), "--learning-rate", "0.02"),
            *("--out", str(self.folder / out), "--json", *self.options, *more),
        ]

    def with_checkpoints(self, out: str, *more: str, epochs: int) -> list[str]:
        folder = ("--checkpoint", str(self.checkpoints), "--checkpoint-every", str(EVERY))
        return self.arguments(out, *folder, *more, epochs=epochs)

    def resume(self, out: str, *more: str, epochs: int) -> Done:
        return coexec(*self.with_checkpoints(out, "--resume", *more, epochs=epochs))

    def uninterrupted(self, epochs: int) -> dict[str, bytes]:
        done = coexec(*self.arguments("whole.onnx", epochs=epochs))
        assert done.record["steps"] == epochs * PER_EPOCH
        return self.parameters("whole.onnx")

    def parameters(self, out: str) -> dict[str, bytes]:
        return parameters(self.folder / out)

    def files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("checkpoint-*.npz"))


def saved_steps(training: Training) -> int:
    """Steps of the newest checkpoint, 0 without any."""
    files = training.files()
    return int(files[-1].stem.removeprefix("checkpoint-")) if files else 0


def wait_for_progress(training: Training, process: Popen[str], beyond: int) -> None:
    """Until a checkpoint of more than ``beyond`` steps exists."""
    deadline = time.monotonic() + SECONDS
    while saved_steps(training) <= beyond and process.poll() is None:
        assert time.monotonic() < deadline, "the training makes no progress"
        time.sleep(0.002)


def kill_at_a_random_moment(training: Training, rng: np.random.Generator, *more: str) -> None:
    """Start the training, let it get ahead, kill it without warning."""
    before = saved_steps(training)
    process = start(*training.with_checkpoints("killed.onnx", *more, epochs=ENDLESS))
    wait_for_progress(training, process, before)
    time.sleep(rng.uniform(0.0, 0.4))
    process.send_signal(signal.SIGKILL)
    done = finish(process)
    assert done.status == -signal.SIGKILL, done.err
    assert saved_steps(training) > before


def check_resumption(training: Training) -> None:
    """Resume after the newest checkpoint for two epochs; the same in one go gives the same bits."""
    steps = saved_steps(training)
    epochs = steps // PER_EPOCH + 2
    record = training.resume("resumed.onnx", epochs=epochs).record
    assert record["notes"] == [f"resumed after step {steps}"]
    assert record["steps"] == epochs * PER_EPOCH
    resumed = training.parameters("resumed.onnx")
    assert resumed == training.uninterrupted(epochs)
    start = training.parameters("model.onnx")
    assert {name for name in start if resumed[name] == start[name]} <= {"ratio"}


CASES = {
    "reference": (("-p", "reference"), False),
    "opencl": (("-p", THOROUGH[0]), False),
    "opencl-dropout-adam": (("-p", THOROUGH[0], "--optimizer", "adam"), True),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_equals_uninterrupted(case: str, tmp_path: Path) -> None:
    options, dropout = CASES[case]
    rng = np.random.default_rng(sum(map(ord, case)))
    training = Training(tmp_path, *options, dropout=dropout)
    kill_at_a_random_moment(training, rng)
    if case == "reference":  # a resumed training can be killed again
        kill_at_a_random_moment(training, rng, "--resume")
    check_resumption(training)


def test_a_training_within_a_budget_is_killed_and_resumed_without_a_difference(
    tmp_path: Path,
) -> None:
    """One byte less than the plain step takes; the parameters are those of the plain training."""
    plain = Training(tmp_path / "plain", "-p", THOROUGH[0])
    how = (SoftmaxCrossEntropy(), SGD(0.02, momentum=0.9), [THOROUGH[0]])
    trainer = api.Trainer(api.load(plain.folder / "model.onnx"), *how)
    whole = trainer.planned_bytes({"x": arrays(BATCH)["x"]})
    budget = ("--memory", f"{whole - 1}B")
    training = Training(tmp_path / "budget", "-p", THOROUGH[0], *budget)
    kill_at_a_random_moment(training, np.random.default_rng(0))
    steps = saved_steps(training)
    epochs = steps // PER_EPOCH + 2
    record = training.resume("resumed.onnx", epochs=epochs).record
    assert record["notes"] == [f"resumed after step {steps}"]
    assert record["memory"]["used"]
    assert record["peak_bytes"] < record["memory"]["plain_bytes"] == whole
    assert training.parameters("resumed.onnx") == plain.uninterrupted(epochs)


def test_ctrl_c_writes_a_checkpoint_and_exits_with_130(tmp_path: Path) -> None:
    training = Training(tmp_path, "-p", THOROUGH[0])
    process = start(*training.with_checkpoints("interrupted.onnx", epochs=ENDLESS))
    wait_for_progress(training, process, 0)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130, done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not (tmp_path / "interrupted.onnx").exists()
    check_resumption(training)


def step_that(
    trainer: api.Trainer, number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let ``act`` happen in the middle of a step: parameters are new, the step is not counted."""
    whole = trainer.step

    def step(*arguments: Any) -> float:
        loss = whole(*arguments)
        if trainer.steps == number:
            trainer.steps -= 1
            act()
            trainer.steps += 1
        return loss

    monkeypatch.setattr(trainer, "step", step)


def training_to_interrupt(tmp_path: Path) -> tuple[api.Trainer, Callable[[], Result]]:
    trainer = api.Trainer(api.load(network()), SoftmaxCrossEntropy(), SGD(0.02), ["reference"])
    data = arrays(SAMPLES)
    labels = data.pop("labels")
    how = FitOptions(epochs=2, batch_size=BATCH, checkpoint=tmp_path, checkpoint_every=EVERY)
    return trainer, lambda: fit(trainer, Dataset(data, labels), None, how)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_before_the_first_step_is_done_is_heard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling for it, and searching how it keeps a budget, may take minutes."""
    trainer, run = training_to_interrupt(tmp_path)
    heard: list[int] = []

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        heard.append(trainer.steps)

    step_that(trainer, 1, interrupt, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not heard
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_later_step_lets_it_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, run = training_to_interrupt(tmp_path)
    step_that(trainer, 3, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000003.npz"]


@pytest.mark.usefixtures("ctrl_c")
def test_a_step_that_a_second_ctrl_c_cuts_in_half_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, run = training_to_interrupt(tmp_path)

    def interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    step_that(trainer, EVERY + 2, interrupt_twice, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{EVERY:09d}.npz"]


# The rest needs no second process: a short training stands for an interrupted longer one.

SHORT, LONG = 3, 6


@pytest.fixture
def interrupted(tmp_path: Path) -> Training:
    """A training of six epochs that ended after three."""
    training = Training(tmp_path, "-p", "reference")
    done = coexec(*training.with_checkpoints("short.onnx", epochs=SHORT))
    assert done.record["steps"] == SHORT * PER_EPOCH
    return training


def test_the_newest_two_checkpoints_are_kept(interrupted: Training) -> None:
    names = [path.name for path in interrupted.files()]
    assert names == ["checkpoint-000000014.npz", "checkpoint-000000018.npz"]
    assert sorted(interrupted.checkpoints.iterdir()) == interrupted.files()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """One bit of an array."""
    with np.load(path) as archive:
        array = archive["fc1.weight"].tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(array) + len(array) // 2] ^= 1
    path.write_bytes(content)


def tamper(path: Path) -> None:
    """Another value in a well-formed archive: only the digest can tell."""
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    content["fc1.bias"][3] += 1
    np.savez(path, allow_pickle=False, **content)


@pytest.mark.parametrize("damage", [truncate, empty, flip, tamper])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_previous_used(
    interrupted: Training, damage: object
) -> None:
    newest = interrupted.files()[-1]
    assert callable(damage)
    damage(newest)
    record = interrupted.resume("resumed.onnx", epochs=LONG).record
    refusal, resumed = record["notes"]
    assert refusal.startswith(f"checkpoint {newest} is ")
    assert "damaged" in refusal
    assert resumed == "resumed after step 14"
    assert interrupted.parameters("resumed.onnx") == interrupted.uninterrupted(LONG)


def test_no_usable_checkpoint_is_an_error_not_a_new_start(interrupted: Training) -> None:
    for path in interrupted.files():
        truncate(path)
    done = interrupted.resume("resumed.onnx", epochs=LONG)
    assert (done.status, done.error["kind"]) == (1, "CheckpointError")
    assert done.error["error"].startswith(f"no usable checkpoint in {interrupted.checkpoints}: ")
    for path in interrupted.files():
        assert f"checkpoint {path} is truncated or damaged" in done.error["error"]
    assert not (interrupted.folder / "resumed.onnx").exists()


def test_an_empty_folder_starts_from_the_beginning_and_says_so(tmp_path: Path) -> None:
    training = Training(tmp_path, "-p", "reference")
    record = training.resume("resumed.onnx", epochs=SHORT).record
    assert record["notes"] == [
        f"no checkpoint in {training.checkpoints}: starting from the beginning"
    ]
    assert training.parameters("resumed.onnx") == training.uninterrupted(SHORT)


@pytest.mark.parametrize(
    "other",
    [
        ["--optimizer", "adam"],
        ["--batch-size", "4"],
        ["--seed", "1"],
        ["--loss", "mse"],
        ["--clip-norm", "1"],
        ["--trainable", "fc2.*"],
        ["--momentum", "0.5"],
        ["--batch-statistics", "frozen"],
        ["--ema", "0.99"],
    ],
    ids=" ".join,
)
def test_a_checkpoint_of_another_training_is_refused(
    interrupted: Training, other: list[str]
) -> None:
    done = interrupted.resume("resumed.onnx", *other, epochs=LONG)
    newest = interrupted.files()[-1]
    assert (done.status, done.error["kind"]) == (1, "CheckpointError")
    assert done.error["error"].startswith(f"checkpoint {newest} belongs to another training")
    assert "use another --checkpoint folder" in done.error["error"]


def test_a_checkpoint_of_another_model_is_refused(interrupted: Training) -> None:
    """Names and shapes of the weights agree; only an operator differs."""
    other = network()
    next(node for node in other.graph.node if node.op_type == "Relu").op_type = "Tanh"
    (interrupted.folder / "model.onnx").write_bytes(other.SerializeToString())
    done = interrupted.resume("resumed.onnx", epochs=LONG)
    assert "belongs to another training" in done.error["error"]


@pytest.mark.parametrize("changed", ["x", "labels"])
def test_a_checkpoint_of_other_data_of_the_same_shape_is_refused(
    interrupted: Training, changed: str
) -> None:
    file = interrupted.folder / "data.npz"
    with np.load(file) as found:
        held = dict(found)
    held[changed] = held[changed][::-1]
    np.savez(file, **held)
    done = interrupted.resume("resumed.onnx", epochs=LONG)
    assert "belongs to another training" in done.error["error"]


@pytest.mark.parametrize("processor", ["reference", THOROUGH[0]])
def test_accumulated_gradients_and_moments_resume_exactly(processor: str, tmp_path: Path) -> None:
    options = ("-p", processor, "--micro-batches", "2", "--optimizer", "adamw", "--clip-norm", "1")
    training = Training(tmp_path, *options, dropout=True)
    assert coexec(*training.with_checkpoints("short.onnx", epochs=SHORT)).status == 0
    record = training.resume("resumed.onnx", epochs=LONG).record
    assert record["notes"] == [f"resumed after step {SHORT * PER_EPOCH}"]
    assert training.parameters("resumed.onnx") == training.uninterrupted(LONG)


@pytest.mark.parametrize("processor", ["reference", THOROUGH[0]])
def test_a_state_survives_predictions_before_the_next_step(processor: str) -> None:
    """A prediction needs the parameters only; the optimizer's state must not get lost over it."""

    def trainer() -> api.Trainer:
        loss = api.losses.SoftmaxCrossEntropy()
        return api.Trainer(api.load(network()), loss, api.optim.Adam(0.01), [processor])

    batch = arrays(8)
    feeds, labels = {"x": batch["x"]}, batch["labels"]
    first = trainer()
    for _ in range(3):
        first.step(feeds, labels)
    state = first.state()
    assert any("moment" in name for name in state)
    second = trainer()
    second.load_state(state, first.steps)
    outputs = second.predict(feeds)["y"]
    assert outputs.tobytes() == first.predict(feeds)["y"].tobytes()
    again = second.state()
    assert {n: a.tobytes() for n, a in again.items()} == {n: a.tobytes() for n, a in state.items()}
    assert second.step(feeds, labels) == first.step(feeds, labels)
    for name, array in first.state().items():
        assert second.state()[name].tobytes() == array.tobytes(), name
    second.load_state(state, 3)  # back to where it was, on a trainer that is compiled
    assert second.predict(feeds)["y"].tobytes() == outputs.tobytes()


def test_resuming_a_finished_training_changes_nothing(interrupted: Training) -> None:
    record = interrupted.resume("resumed.onnx", epochs=SHORT).record
    assert record["steps"] == SHORT * PER_EPOCH
    assert record["step_ms_median"] is None
    assert interrupted.parameters("resumed.onnx") == interrupted.parameters("short.onnx")
    told = interrupted.with_checkpoints("resumed.onnx", "--resume", epochs=SHORT)
    done = coexec(*(word for word in told if word != "--json"))
    assert f"steps     {SHORT * PER_EPOCH}, all done before: raise --epochs to train on" in done.out

"""What a provider was asked once is known in the next process, with the reason of a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime.capi.onnxruntime_pybind11_state as statuses
import pytest

from coexec.base import cache
from coexec.base.errors import SaveError
from coexec.core.types import OpCall, TensorType
from coexec.processors.ort import answers as module
from coexec.processors.ort.support import SupportOracle


class Slow:
    """A provider that takes long and refuses large tensors."""

    name, device, kind = "ort:slow", "slow NPU", "npu"

    def __init__(self, release: str = "1.0") -> None:
        self.release = release
        self.asked = 0

    def version(self) -> str:
        return f"ONNX Runtime 9, slow {self.release}"

    def session(self, text: bytes, _options: Any) -> None:
        self.asked += 1
        if b"\x08\x80\x08" in text:  # a dimension of 1024
            raise statuses.Fail("the tensor is too large")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything asked is worth keeping, in a folder of the test's own."""
    monkeypatch.setattr(module, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)
    return tmp_path / "support"


def relu(size: int, name: str = "") -> OpCall:
    kind = TensorType((size,), np.dtype(np.float32))
    return OpCall("Relu", (kind,), {}, (kind,), version=14, name=name)


def oracle(provider: Slow) -> SupportOracle:
    return SupportOracle(provider)  # type: ignore[arg-type]


def test_answers_and_reasons_are_kept_for_the_next_process(folder: Path) -> None:
    first, second = Slow(), Slow()
    before = [oracle(first).supports(relu(size, name="one")) for size in (8, 1024)]
    assert [answer.yes for answer in before] == [True, False]
    assert "too large" in before[1].reason
    assert [oracle(second).supports(relu(size, name="two")) for size in (8, 1024)] == before
    assert (first.asked, second.asked) == (2, 0)
    (file,) = folder.glob("*.json")
    record = json.loads(file.read_text())
    assert record["version"] == "ONNX Runtime 9, slow 1.0 on slow NPU"
    assert {each["operator"] for each in record["answers"].values()} == {"Relu"}


def test_another_shape_or_another_version_is_asked() -> None:
    oracle(Slow()).supports(relu(8))
    other, newer = Slow(), Slow("1.1")
    oracle(other).supports(relu(9))
    oracle(newer).supports(relu(8))
    assert (other.asked, newer.asked) == (1, 1)


def test_what_onnx_runtime_did_not_say_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Slow()
    with monkeypatch.context() as patch:
        patch.setattr(Slow, "session", _out_of_memory)
        assert not oracle(provider).supports(relu(8)).yes
    assert oracle(provider).supports(relu(8)).yes


def _out_of_memory(*_arguments: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("text", ["{", "[]", '{"answers": {"a": {"yes": 1, "reason": ""}}}'])
def test_a_damaged_file_is_asked_again(
    folder: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    oracle(Slow()).supports(relu(8))
    (file,) = folder.glob("*.json")
    file.write_text(text)
    provider = Slow()
    assert oracle(provider).supports(relu(8)).yes
    assert provider.asked == 1
    assert "is damaged" in caplog.text


def test_a_disk_that_takes_nothing_is_told_and_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_arguments: object) -> None:
        raise SaveError("the disk is full")

    monkeypatch.setattr(cache, "write_atomically", full)
    monkeypatch.setattr(cache, "_told", set())
    assert oracle(Slow()).supports(relu(8)).yes
    assert "the disk is full" in caplog.text


def test_two_processes_add_to_one_file() -> None:
    one, two = oracle(Slow()), oracle(Slow())
    one.supports(relu(8))
    two.supports(relu(9))
    third = Slow()
    assert all(oracle(third).supports(relu(size)).yes for size in (8, 9))
    assert third.asked == 0

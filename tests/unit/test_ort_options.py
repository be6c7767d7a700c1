"""Options of ONNX Runtime's CPU processor: threads, cores, and what is wrong with a spec."""

from __future__ import annotations

import importlib
import os
import threading
from pathlib import Path

import pytest

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.core.processor import Processor
from coexec.processors.find import list_processors, open_processor
from coexec.processors.ort import plugin
from coexec.processors.ort.options import OrtOptions, parse_options
from coexec.processors.ort.processor import OrtProcessor

CORES = ((0, 4), (1, 5), (2, 6), (3, 7))
KNOWN = ("threads", "cores")


def parsed(text: str) -> OrtOptions:
    options = dict(item.split("=") for item in text.split("&"))
    return parse_options("ort:cpu", options, CORES, KNOWN)


@pytest.mark.parametrize(
    ("text", "expected", "threads"),
    [
        ("threads=3", OrtOptions(3), 3),
        ("cores=2", OrtOptions(0, (2,)), 1),
        ("cores=0-2", OrtOptions(0, (0, 1, 2)), 3),
        ("cores=3+1", OrtOptions(0, (1, 3)), 2),
        ("threads=1&cores=0-1", OrtOptions(1, (0, 1)), 1),
    ],
)
def test_options_are_read(text: str, expected: OrtOptions, threads: int) -> None:
    options = parsed(text)
    assert options == expected
    assert options.thread_count(CORES) == threads
    assert parsed(str(options).removeprefix("?")) == options


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("threads=0", "threads=0 is no count"),
        ("threads=-1", "threads=-1 is no count"),
        ("threads=two", "threads=two is no count"),
        ("threads=99999", "threads=99999 is no count"),
        ("cores=4", "the cores 0 to 3, not 4"),
        ("cores=a", "cores=a is no list; write"),
        ("cores=2-1", "cores=2-1 is no list"),
        ("cores=0+", "cores=0[+] is no list"),
        ("threads=2&cores=0", "2 threads on 1 cores would wait for each other"),
        ("core=0", "no option 'core'; known: threads=COUNT, cores=LIST"),
    ],
)
def test_bad_options_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ProcessorError, match=complaint):
        parsed(text)


def test_a_system_that_does_not_pin_says_so() -> None:
    with pytest.raises(ProcessorError, match="does not tie threads to cores"):
        parse_options("ort:cpu", {"cores": "0"}, (), KNOWN)


def test_logical_cpus_are_grouped_by_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    assert physical_cores(tmp_path) == ((0, 2), (1, 3))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 3}, raising=False)
    assert physical_cores(tmp_path) == ((1, 3),)
    assert physical_cores(tmp_path / "nothing") == ((1,), (3,))


@pytest.mark.skipif(not physical_cores(), reason="this system does not tie threads to cores")
def test_threads_stay_on_the_cores_of_the_spec() -> None:
    core = len(physical_cores()) - 1
    processor = opened(f"ort:cpu?cores={core}")
    assert processor.describe().resources == (f"cpu:{core}",)
    assert processor.describe().compute_units == processor.threads == 1
    assert processor.worker.call(allowed) == set(physical_cores()[core])
    assert allowed() == {cpu for each in physical_cores() for cpu in each}


def test_the_same_spec_is_the_same_processor() -> None:
    assert open_processor("ort") is open_processor("ort:cpu")
    assert open_processor("ort:cpu?threads=1") is open_processor("ort:cpu?threads=1")
    assert opened("ort:cpu?threads=1").describe().name == "ort:cpu?threads=1"


def test_work_runs_on_a_thread_of_the_processor() -> None:
    processor = opened("ort:cpu?threads=1")
    name = processor.worker.call(lambda: threading.current_thread().name)
    assert name.startswith("ort:cpu?threads=1")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("ort:gpu", "unknown processor 'ort:gpu'; known: ort:cpu"),
        ("ort:cpu?threads", "write options as"),
        ("ort:nnapi", "no NnapiExecutionProvider|has no option"),
    ],
)
def test_bad_specs_are_refused(spec: str, complaint: str) -> None:
    with pytest.raises(ProcessorError, match=complaint):
        open_processor(spec)


def test_absent_providers_are_listed_with_the_reason() -> None:
    found = {c.name: c for c in list_processors() if c.name.startswith("ort:")}
    assert found["ort:cpu"].spec is not None
    for candidate in found.values():
        assert (candidate.spec is None) == bool(candidate.reason)


def test_without_onnxruntime_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_name: str) -> None:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(importlib, "import_module", missing)
    (candidate,) = plugin.candidates()
    assert candidate.spec is None
    assert "No module named 'onnxruntime'" in candidate.reason
    assert "pip install 'coexec[ort]'" in candidate.reason


def allowed() -> set[int]:
    return set(os.sched_getaffinity(0))


def opened(spec: str) -> OrtProcessor:
    processor: Processor = open_processor(spec)
    assert isinstance(processor, OrtProcessor)
    return processor

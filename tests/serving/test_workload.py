"""Workload files: what is read, and that every bad key is named with its file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from coexec.base.errors import UsageError
from coexec.serving.arrivals import Burst, Periodic, Poisson, Stream
from coexec.serving.workload import read_workload, with_duration

TEXT = """\
duration_s = 2.5
processors = ["opencl", "reference"]
seed = 7
drop_late = true

[models.camera]
model = "digits_cnn"
arrivals = { kind = "periodic", fps = 30, start_ms = 5 }
deadline_ms = 33
processor = "opencl"
times_ms = { opencl = 1.5, reference = 9 }

[models.words]
model = "words.onnx"
shapes = { x = [1, 16] }
arrivals = { kind = "burst", size = 3, every_ms = 200 }

[models.some]
model = "mlp"
arrivals = { kind = "poisson", rate = 4 }

[models.all]
model = "mlp"
arrivals = { kind = "stream", in_flight = 2 }
"""


def write(folder: Path, text: str) -> Path:
    (folder / "words.onnx").write_bytes(b"")
    path = folder / "workload.toml"
    path.write_text(text)
    return path


def test_a_workload_is_read(tmp_path: Path) -> None:
    workload = read_workload(write(tmp_path, TEXT))
    assert (workload.duration_ms, workload.seed, workload.drop_late) == (2500, 7, True)
    assert workload.processors == ("opencl", "reference")
    camera, words, some, everything = workload.models
    assert (camera.name, camera.source) == ("camera", "digits_cnn")
    assert camera.arrivals == Periodic(30, 5)
    assert (camera.deadline_ms, camera.processor) == (33, "opencl")
    assert camera.times_ms == {"opencl": 1.5, "reference": 9}
    assert words.source == tmp_path / "words.onnx"
    assert (words.shapes, words.arrivals) == ({"x": (1, 16)}, Burst(3, 200))
    assert (some.arrivals, everything.arrivals) == (Poisson(4), Stream(2))
    assert some.deadline_ms == math.inf
    assert with_duration(workload, 1).duration_ms == 1000
    assert with_duration(workload, None) == workload


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("duration_s = 2.5", "", "duration_s is missing"),
        ("duration_s = 2.5", "duration_s = 0", "duration_s is 0; it must be finite and above 0"),
        ("seed = 7", "seed = 1.5", "seed is 1.5; a whole number from 0 on"),
        ("drop_late = true", "drop_late = 1", "drop_late is 1; true or false"),
        ("drop_late", "drop_early", "drop_early is unknown; known: drop_late, duration_s"),
        ('["opencl", "reference"]', "[]", "processors is []; a list of processors"),
        ('["opencl", "reference"]', '["opencl", "opencl"]', "processors names a processor twice"),
        ('model = "digits_cnn"', 'model = "digits"', "models.camera.model is 'digits': neither"),
        ('model = "words.onnx"', 'model = "wrds.onnx"', "models.words.model is 'wrds.onnx'; there"),
        ("x = [1, 16]", "x = [1, 0]", "models.words.shapes.x is [1, 0]"),
        ('kind = "periodic", ', "", "models.camera.arrivals.kind is missing"),
        ('kind = "periodic"', 'kind = "never"', "arrivals.kind is 'never'; it must be one of"),
        ("fps = 30", "fps = 0", "models.camera.arrivals.fps is 0"),
        ("fps = 30", "rate = 30", "models.camera.arrivals.fps is missing"),
        ("size = 3", "size = 2.5", "models.words.arrivals.size is 2.5; a whole number from 1 on"),
        ("rate = 4", "rate = 4, start_ms = 9", "models.some.arrivals.start_ms is only for"),
        ("in_flight = 2", "in_flight = 0", "models.all.arrivals.in_flight is 0"),
        ("deadline_ms = 33", "deadline_ms = -1", "models.camera.deadline_ms is -1"),
        ("deadline_ms = 33", "deadline = 33", "models.camera.deadline is unknown"),
        ('processor = "opencl"', 'processor = "ort"', "models.camera.processor is 'ort'; it must"),
        ("opencl = 1.5", "ort = 1.5", "models.camera.times_ms.ort is none of opencl, reference"),
        ("opencl = 1.5", "opencl = 0", "models.camera.times_ms.opencl is 0"),
        ("deadline_ms = 33", 'plan = "words.onnx"', "models.camera.plan says where the model runs"),
        ("deadline_ms = 33", 'plan = "no.onnx"', "models.camera.plan is 'no.onnx'; there is no"),
        ("duration_s = 2.5", "duration_s", "is not a TOML file"),
    ],
)
def test_a_bad_key_is_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_workload(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_workload_without_models_is_refused(tmp_path: Path) -> None:
    text = TEXT[: TEXT.index("[models.camera]")] + "[models]\n"
    with pytest.raises(UsageError, match="models has no model"):
        read_workload(write(tmp_path, text))


def test_a_duration_must_be_positive(tmp_path: Path) -> None:
    workload = read_workload(write(tmp_path, TEXT))
    for seconds in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="--duration"):
            with_duration(workload, seconds)

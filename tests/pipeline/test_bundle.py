"""A saved program runs where ONNX cannot be imported, with the very same results."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import coexec
from coexec.base.errors import CoexecError, DataError, ModelError, ProcessorError
from coexec.frontend import load
from coexec.processors.find import list_processors
from coexec.session import Session
from coexec.zoo.catalog import build
from tests.graphs import parse
from tests.pipeline.command import python
from tests.pipeline.small import FEATURES, arrays, network
from tests.runtimes import THOROUGH

BATCH = 5
WITHOUT_ONNX = """
import importlib.abc, json, sys
import numpy as np

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnx", "onnx_ir", "onnxscript"):
            raise ImportError(f"{name} is blocked here")

sys.meta_path.insert(0, Blocker())
for name in ("onnx", "onnx_ir"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} could be imported")

import coexec
bundle, data, out = sys.argv[1:]
session = coexec.open_bundle(bundle)
with np.load(data) as archive:
    feeds = {name: archive[name] for name in archive.files}
for _ in range(2):  # the second run finds buffers that are not fresh
    results = session.run(feeds)
np.savez(out, **results)
print(json.dumps(sorted(m for m in sys.modules if m.startswith("coexec."))))
"""


def session_of(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> Session:
    return coexec.compile(coexec.load(model, shapes), [THOROUGH[0]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "small.coexec"
    session_of(network(), x=(BATCH, FEATURES)).save(path)
    return path


def run_without_onnx(
    bundle: Path, feeds: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """Outputs from a process that cannot import ONNX, and the modules of coexec it loaded."""
    data, out = folder / "feeds.npz", folder / "outputs.npz"
    np.savez(data, **feeds)
    done = python(WITHOUT_ONNX, [bundle, data, out])
    assert done.status == 0, done.err
    with np.load(out) as archive:
        return {name: archive[name] for name in archive.files}, json.loads(done.out)


def test_a_bundle_runs_without_onnx(tmp_path: Path) -> None:
    """Several inputs and outputs, one of them an input, one a constant; integers and booleans."""
    proto = parse(
        "g (float[2,6] x, int64[2,6] i) => (float[2,6] p, float[2,6] x2, bool[2,6] b, float[2] c, "
        "float[2,3] y) <float[6,3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}> "
        "{ p = Softmax(x) f = Cast<to = 1>(i) b = Less(x, f) x2 = Identity(x) "
        "c = Constant<value_floats = [1.5, -2.5]>() y = MatMul(p, w) }"
    )
    session = session_of(proto)
    rng = np.random.default_rng(3)
    feeds: dict[str, Any] = {
        "x": rng.standard_normal((2, 6)).astype(np.float32),
        "i": rng.integers(-2, 2, (2, 6)),
    }
    expected = session.run(feeds)
    path = tmp_path / "bundle.coexec"
    session.save(path)
    found, modules = run_without_onnx(path, feeds, tmp_path)
    assert set(found) == {"p", "x2", "b", "c", "y"}
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name
    np.testing.assert_allclose(found["p"].sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found["x2"], feeds["x"])
    assert not any(m.startswith(("coexec.ops", "coexec.frontend")) for m in modules)


def test_a_convolution_network_as_a_bundle(tmp_path: Path) -> None:
    model = load(build("digits_cnn", batch=2, width=4))
    session = coexec.compile(model, [THOROUGH[0]])
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)}
    path = tmp_path / "digits.coexec"
    session.save(path)
    found, _ = run_without_onnx(path, feeds, tmp_path)
    assert found["y"].tobytes() == session.run(feeds)["y"].tobytes()
    assert len(np.unique(found["y"])) == 20


def test_a_bundle_in_this_process(bundle: Path) -> None:
    session = session_of(network(), x=(BATCH, FEATURES))
    loaded = coexec.open_bundle(bundle)
    for seed in range(3):
        x = arrays(BATCH, seed)["x"]
        assert loaded.run({"x": x})["y"].tobytes() == session.run({"x": x})["y"].tobytes()
    assert loaded.program.peak_bytes == session.peak_bytes


@pytest.mark.parametrize(
    "name",
    [c.name for c in list_processors() if c.spec is not None and c.name.startswith("opencl")],
)
def test_a_bundle_runs_on_other_devices(bundle: Path, name: str) -> None:
    x = arrays(BATCH)["x"]
    expected = coexec.compile(coexec.load(network()), ["reference"]).run({"x": x})["y"]
    found = coexec.open_bundle(bundle, name).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", ["unit=gpu", "launch=each&memory=64MiB"])
def test_a_bundle_opens_on_a_processor_with_options(tmp_path: Path, options: str) -> None:
    """It asks for the processor that it was made for as a whole spec."""
    session = coexec.compile(
        coexec.load(network(), {"x": (BATCH, FEATURES)}), [f"{THOROUGH[0]}?{options}"]
    )
    x = arrays(BATCH)["x"]
    expected = session.run({"x": x})["y"]
    session.save(tmp_path / "net.coexec")
    loaded = coexec.open_bundle(tmp_path / "net.coexec")
    assert loaded.run({"x": x})["y"].tobytes() == expected.tobytes()
    # What a GPU is to run can be tried anywhere.
    found = coexec.open_bundle(tmp_path / "net.coexec", THOROUGH[0]).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# What does not fit


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"input 'x' is missing; the program wants \('x',\)"),
        (
            np.zeros((5, FEATURES), np.float32),
            r"inputs are arrays by name, not ndarray; the program wants \('x',\)",
        ),
        (
            {"x": np.zeros((4, FEATURES), np.float32)},
            r"wants float32\[5x12\], not float32\(4, 12\)",
        ),
        ({"x": np.zeros((BATCH, FEATURES))}, r"wants float32\[5x12\], not float64\(5, 12\)"),
    ],
)
def test_data_that_does_not_fit(bundle: Path, feeds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        coexec.open_bundle(bundle).run(feeds)


def test_processors_that_do_not_fit(bundle: Path) -> None:
    with pytest.raises(ProcessorError, match="saved programs run on opencl, not on 'reference'"):
        coexec.open_bundle(bundle, "reference")
    with pytest.raises(
        ProcessorError, match=r"processor 'opencl:nonsense' is not available; known"
    ):
        coexec.open_bundle(bundle, "opencl:nonsense")
    with pytest.raises(ProcessorError, match="has no option unit=npu; known: kernels="):
        coexec.open_bundle(bundle, f"{THOROUGH[0]}?unit=npu")


def test_a_program_on_the_reference_cannot_be_saved(tmp_path: Path) -> None:
    session = coexec.compile(coexec.load(network(), {"x": (2, FEATURES)}), ["reference"])
    path = tmp_path / "file"
    with pytest.raises(ProcessorError, match="cannot be saved: a part runs on 'reference'"):
        session.save(path)
    assert not path.exists()


def test_a_session_of_unknown_shapes_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shapes are not known yet: run it once or give shapes"):
        session_of(network()).save(tmp_path / "file")


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        coexec.open_bundle(path)
    return str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04" + bytes(40), network().SerializeToString()]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert refusal(path) == f"{path} is not a coexec bundle or is damaged: File is not a zip file"


def test_missing_files_and_other_archives_are_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(tmp_path / "none")
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    assert "no item named 'program.json'" in refusal(tmp_path / "data.npz")


def test_truncated_bundles_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    path = tmp_path / "short"
    for length in range(0, len(content), max(len(content) // 40, 1)):
        path.write_bytes(content[:length])
        assert str(path) in refusal(path)


def test_a_flipped_bit_in_the_weights_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    # Not the first layer's: batch normalisation is folded into those.
    parameters = {tensor.name: tensor for tensor in network().graph.initializer}
    weights = onnx.numpy_helper.to_array(parameters["fc2.weight"]).tobytes()
    content[content.index(weights) + len(weights) // 2] ^= 4
    path = tmp_path / "flipped"
    path.write_bytes(content)
    assert "Bad CRC-32" in refusal(path)


def rewritten(bundle: Path, path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A well-formed archive with another ``program.json``."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "program.json":
                document = json.loads(data)
                edit(document)
                data = json.dumps(document).encode()
            new.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format=99), "bundle format 99 is not 3"),
        (lambda d: d.pop("buffers"), "'buffers'"),
        (lambda d: d["instructions"].append(["Explode", {}]), "'Explode'"),
        (lambda d: d["executables"][0].pop("steps"), "'steps'"),
        (lambda d: d["executables"][0].update(processor="tpu"), "saved programs run on opencl"),
        (lambda d: d["executables"][0]["steps"][0].update(program=77), "program 77"),
        (lambda d: d.update(arrays=[]), "items"),
        (lambda d: d["arrays"].update({"0/w": "../../etc/passwd"}), "no item named"),
        (lambda d: d["arrays"].clear(), "there is no constant"),
        (lambda d: d["buffers"].pop(), "a launch has an unknown buffer"),
        (lambda d: d["executables"].clear(), "there is no executable 0"),
        (lambda d: d["executables"][0]["inputs"].append("x"), "takes 4 buffers, not 3"),
        (lambda d: d["buffers"][0].update(processor="gpu"), "on a processor that executes nothing"),
        (lambda d: d["types"].clear(), "tensor 'x' has no type"),
        (lambda d: d["instructions"][0][1].update(buffer="none"), "there is no buffer 'none'"),
    ],
)
def test_bundles_that_contradict_themselves_are_refused(
    bundle: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = rewritten(bundle, tmp_path / "edited", edit)
    with pytest.raises(CoexecError) as caught:
        coexec.open_bundle(path)
    assert message in str(caught.value)

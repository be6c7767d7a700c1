"""The zoo's models are valid ONNX for other tools, seeded, and have their published sizes."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.zoo import CATALOG, build
from coexec.zoo.families import FAMILIES
from coexec.zoo.published import PUBLISHED

HUGE = {"vgg16_224"}
"""Half a gigabyte of weights: only counted."""
DEEP = ("resnet50", "densenet121", "inception_v2")
"""Hundreds of nodes: counted, and run once on a small image."""

SMALL = [name for name in CATALOG if name not in HUGE.union(DEEP, PUBLISHED, FAMILIES)]

PUBLISHED_PARAMETERS = {
    # torchvision's models with 1,000 classes
    "resnet18_224": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "mobilenetv2": 3_504_872,
    "squeezenet": 1_235_496,
    "vgg16_224": 138_357_544,
    # Caffe's MNIST example; LeCun et al. with C3 seeing every map of S2
    "lenet5": 431_080,
    "lenet5_classic": 61_706,
}


def parameters(model: ir.Model) -> dict[str, Array]:
    """Learned values by name: running statistics are none."""
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and ".running_" not in name
    }


def draw_input(name: str, batch: int, rng: np.random.Generator) -> Array:
    """Random data for a model with its default options."""
    shape = (batch, *CATALOG[name].input_shape)
    if name == "gpt_tiny":
        return rng.integers(0, CATALOG[name].classes, shape)
    return rng.standard_normal(shape, np.float32)


def run_in_onnxruntime(model: ir.Model, x: Array) -> Array:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.mark.parametrize("name", SMALL)
def test_model_passes_the_checker_and_runs_in_onnxruntime(
    name: str, rng: np.random.Generator
) -> None:
    entry = CATALOG[name]
    model = build(name)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert max(entry.version for entry in proto.opset_import) <= 21
    x = draw_input(name, 2, rng)
    y = run_in_onnxruntime(model, x)
    assert y.shape[0] == 2
    assert y.shape[-1] == entry.classes
    assert np.isfinite(y).all()
    # Dead or exploding initialisation would leave logits flat or astronomically large.
    assert 0.01 < y.std() < 100
    # Samples do not depend on the others of their batch: no batch statistics at inference.
    np.testing.assert_allclose(run_in_onnxruntime(model, x[1:]), y[1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_batch_and_classes_are_those_asked_for(name: str, rng: np.random.Generator) -> None:
    model = build(name, batch=3, classes=7)
    assert tuple(model.graph.inputs[0].shape or ()) == (3, *CATALOG[name].input_shape)
    x = draw_input(name, 3, rng) % 7 if name == "gpt_tiny" else draw_input(name, 3, rng)
    y = run_in_onnxruntime(model, x)
    assert tuple(model.graph.outputs[0].shape or ()) == y.shape
    assert (y.shape[0], y.shape[-1]) == (3, 7)


@pytest.mark.parametrize("name", SMALL)
def test_input_and_output_are_x_and_y_with_symbolic_batch(name: str) -> None:
    graph = build(name).graph
    assert [v.name for v in graph.inputs] == ["x"]
    assert [v.name for v in graph.outputs] == ["y"]
    for value in (graph.inputs[0], graph.outputs[0]):
        assert value.shape is not None
        assert value.shape[0] == "N"


@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_the_weights(name: str) -> None:
    first, again, other = (parameters(build(name, seed=s)) for s in (1, 1, 2))
    assert first.keys() == again.keys() == other.keys()
    assert all(np.array_equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if first[key].std() > 0]
    assert drawn
    assert not any(np.array_equal(first[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", SMALL)
def test_names_are_unique_and_say_what_they_are(name: str) -> None:
    graph = build(name).graph
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)
    assert all(node_name and not node_name.startswith("node_") for node_name in names)
    # All that is trained is an initializer; masks and shapes are Constant nodes.
    assert all(v.dtype == ir.DataType.FLOAT for v in graph.initializers.values())


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_parameter_count_is_the_published_one(name: str, count: int) -> None:
    assert sum(value.size for value in parameters(build(name)).values()) == count


def test_inception_v2_has_the_published_size_but_for_the_biases_of_convolutions() -> None:
    weights = parameters(build("inception_v2"))
    biases = sum(w.shape[0] for w in weights.values() if w.ndim == 4)
    assert sum(w.size for w in weights.values()) + biases == 11_295_240


@pytest.mark.parametrize("name", DEEP)
def test_deep_model_passes_the_checker_and_runs_in_onnxruntime(
    name: str, rng: np.random.Generator
) -> None:
    model = build(name, classes=7, image_size=None)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    y = run_in_onnxruntime(model, rng.standard_normal((2, 3, 64, 96), np.float32))
    assert y.shape == (2, 7)
    assert 0.01 < y.std() < 100
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)


def test_batch_normalization_is_in_inference_form() -> None:
    nodes = [node for node in build("resnet18").graph if node.op_type == "BatchNormalization"]
    assert len(nodes) == 20
    assert all("training_mode" not in node.attributes for node in nodes)
    assert all(len(node.outputs) == 1 for node in nodes)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_224", "mobilenetv2", "squeezenet"])
def test_one_file_serves_every_image_size(name: str, rng: np.random.Generator) -> None:
    model = build(name, classes=5, image_size=None)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for height, width in ((64, 64), (96, 80)):
        x = rng.standard_normal((1, 3, height, width), np.float32)
        assert run_in_onnxruntime(model, x).shape == (1, 5)


def test_sensor_cnn_takes_recordings_of_any_length(rng: np.random.Generator) -> None:
    model = build("sensor_cnn", length=None, channels=3)
    for length in (20, 100):
        x = rng.standard_normal((2, 3, length), np.float32)
        assert run_in_onnxruntime(model, x).shape == (2, 4)


@pytest.mark.parametrize("tied", [True, False])
def test_gpt_sees_the_past_only(tied: bool, rng: np.random.Generator) -> None:
    model = build("gpt_tiny", tied=tied, tokens=12, depth=2)
    x = rng.integers(0, 256, (1, 12))
    y = run_in_onnxruntime(model, x)
    changed = x.copy()
    changed[0, 7] = (changed[0, 7] + 1) % 256
    z = run_in_onnxruntime(model, changed)
    np.testing.assert_array_equal(z[0, :7], y[0, :7])
    assert all(not np.array_equal(z[0, i], y[0, i]) for i in range(7, 12))


def test_gpt_head_is_tied_by_sharing_the_embedding() -> None:
    tied, untied = (parameters(build("gpt_tiny", tied=tied)) for tied in (True, False))
    assert untied.keys() - tied.keys() == {"head.weight"}
    assert prod(untied["head.weight"].shape) == prod(tied["wte"].shape)


def test_mlp_has_the_sizes_asked_for() -> None:
    weights = parameters(build("mlp", classes=3, sizes=(20, 11, 5), activation="Tanh"))
    shapes = [weights[f"fc{i}.weight"].shape for i in (1, 2, 3)]
    assert shapes == [(11, 20), (5, 11), (3, 5)]


@pytest.mark.parametrize(("width", "last"), [(0.35, 1280), (0.5, 1280), (1.0, 1280), (1.4, 1792)])
def test_mobilenet_width_scales_channels_in_eights(width: float, last: int) -> None:
    weights = parameters(build("mobilenetv2", width=width))
    assert weights["classifier.fc.weight"].shape == (1000, last)
    assert all(v.shape[0] % 8 == 0 for k, v in weights.items() if k.endswith("conv.weight"))


@pytest.mark.parametrize(("ratio", "nodes"), [(0.5, 2), (0.0, 0)])
def test_dropout_stands_where_the_paper_has_it_or_nowhere(ratio: float, nodes: int) -> None:
    graph = build("vgg11", dropout_ratio=ratio).graph
    assert sum(node.op_type == "Dropout" for node in graph) == nodes


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "lenet",
            {},
            "no model 'lenet' in the zoo; did you mean 'lenet5', 'lenet5_classic' or ",
        ),
        ("mlp", {"depth": 3}, "mlp has no option 'depth'; known: sizes, activation, seed"),
        ("mlp", {"batch": 0}, "batch must be at least 1, not 0"),
        ("mlp", {"classes": -1}, "classes must be at least 1, not -1"),
        ("mlp", {"sizes": ()}, "sizes must be positive, not ()"),
        ("mlp", {"activation": "Gelu"}, "activation must be one of Relu, Tanh, Sigmoid, not Gelu"),
        ("vgg11", {"image_size": 16}, "vgg11 halves the image five times: 32 at least, not 16"),
        ("vgg11", {"dropout_ratio": 1}, "dropout must lie in [0, 1), not 1"),
        ("vit_tiny", {"image_size": 30}, "30 pixels are no whole number of patches"),
        ("vit_tiny", {"heads": 5}, "192 features cannot be split among 5 heads"),
        ("mobilenetv2", {"width": 0}, "width must be positive, not 0"),
    ],
)
def test_what_makes_no_network_is_refused_with_the_reason(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)

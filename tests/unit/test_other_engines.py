"""Mixes of other engines: what is known of several counts for each; rows mean what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from coexec.core.soc_file import find_soc
from coexec.cost.calibration.engines import (
    ENOUGH,
    SHAPES,
    best_shapes,
    fit_mixes,
    tells_kinds,
)
from coexec.cost.calibration.fit import _mix_row
from coexec.cost.calibration.framework_names import NETWORKS, layers_of_network, network_of
from coexec.cost.calibration.frameworks import NCNN_COLUMNS, ncnn_cores, read_frameworks
from coexec.cost.calibration.sample import Sample
from coexec.cost.soc.coefficients import (
    Coefficients,
    read_coefficients,
    shipped,
    write_coefficients,
)
from coexec.cost.soc.engine_mix import (
    KINDS,
    MATRICES,
    WIDTH,
    mix_levels,
    mix_of,
    without_groups,
)
from coexec.cost.soc.estimate import calls_us, engines, mixable, network_us
from coexec.cost.soc.terms import POINTWISE, TERMS
from coexec.cost.soc.workload import CONV, GROUPED, INPUT, OUTPUT, Workload
from tests.phones import write_csv

pytest.importorskip("scipy")

CHIPS = ("snapdragon-855", "snapdragon-845", "kirin-990")
CORE = "cpu:1big"
SLOWER = {"one": 0.7, "two": 2.0}
MOBILE = {"GoogLeNet": 1580, "ShuffleNetV2": 146, "MnasNet": 315, "EfficientNetB0": 390}
"""Millions of multiply-adds of networks for phones, by their papers."""
LIKE = Coefficients(factors={"tflite cpu float32": {"": np.ones(len(TERMS))}})


def measured(number: int, chip: str, engine: str) -> Sample:
    """Engines are faster than the measured one at 3 x 3 products, and each has a speed."""
    rng = np.random.default_rng(number)
    layers = [call for name in MOBILE for call in layers_of_network(name, {})]
    calls = tuple(layers[place] for place in rng.choice(len(layers), 40))
    like_us = calls_us(LIKE, find_soc(chip), CORE, "float32", "tflite", calls)
    faster = np.array([0.5 if c.kernel == 3 and c.family == CONV else 1.0 for c in calls])
    us = float((SLOWER[engine] * faster * like_us).sum())
    return Sample("made", f"net{number}", find_soc(chip), CORE, "float32", engine, us, calls)


def test_an_engine_is_predicted_on_a_chip_where_it_was_not_measured() -> None:
    samples = [measured(n, chip, "one") for n in range(ENOUGH) for chip in CHIPS[:2]]
    samples += [measured(n, CHIPS[0], "two") for n in range(ENOUGH)]
    fitted = replace(LIKE, mixes=fit_mixes(samples, partial(_mix_row, LIKE)))
    for engine in SLOWER:
        for number in range(ENOUGH, ENOUGH + 3):
            new = measured(number, CHIPS[2], engine)
            guess = network_us(fitted, new.soc, CORE, "float32", engine, new.calls)
            assert guess == pytest.approx(new.measured_us, rel=0.15)
    assert {"one", "two"} <= set(engines(fitted))


def test_few_networks_tell_no_kinds_of_operators_apart() -> None:
    enough = [measured(n, CHIPS[0], "one") for n in range(ENOUGH)]
    few = [measured(n, CHIPS[0], "two") for n in range(ENOUGH - 1)]
    assert tells_kinds([*enough, *few]) == [True] * ENOUGH + [False] * (ENOUGH - 1)


def test_how_far_kinds_may_differ_is_chosen_on_networks_that_were_held_out() -> None:
    """Where kinds differ by a law, they may; where only chance makes them differ, they may not."""
    lawful = [measured(number, CHIPS[0], "one") for number in range(20)]
    rows = np.array([_mix_row(LIKE, sample) for sample in lawful])
    assert best_shapes(lawful, rows)["one"] < 1
    rng = np.random.default_rng(0)
    whole = rows.sum(axis=1) * np.exp(rng.normal(0, 0.5, len(rows)))
    chance = [replace(s, measured_us=float(us)) for s, us in zip(lawful, whole, strict=True)]
    assert best_shapes(chance, rows)["one"] == max(SHAPES)


def test_traffic_counts_beside_kernels_on_cpus_alone() -> None:
    call = Workload(CONV, 1e6, 3e5, 1e5, in_channels=64, out_channels=64)
    found = mixable(LIKE, find_soc(CHIPS[0]), CORE, "float32", [call])
    gbps = find_soc(CHIPS[0]).cores(CORE)[0][0].gbps
    assert found.traffic_us == pytest.approx([4 * 4e5 / gbps / 1e3])
    mix = np.zeros(WIDTH)
    mix[-2] = 3.0
    assert found.times_us(mix) == pytest.approx(3 * found.traffic_us)
    assert found.row @ mix == pytest.approx(found.times_us(mix).sum())
    gpu = mixable(shipped(), find_soc(CHIPS[0]), "gpu", "float16", [call])
    assert gpu.traffic_us == pytest.approx([0.0])


def test_the_most_specific_mix_counts_and_an_unknown_engine_has_none() -> None:
    names = mix_levels("one", "int8", "chip", "cpu:1big")
    general, own = np.ones(WIDTH), np.full(WIDTH, 2.0)
    assert mix_of({"cpu": general}, names) is None
    assert mix_of({"cpu": general, "one cpu": own}, names) is own
    assert mix_of({"one cpu": general, "one cpu int8 chip": own}, names) is own
    assert mix_of({"one cpu": general, "one cpu int8 chip cpu:4big": own}, names) is general
    assert len(mix_levels("one", "float16", "chip", "gpu")) == len(names) - 1


def test_mixes_survive_writing_and_reading(tmp_path: Path) -> None:
    mixes = {"one cpu": np.arange(1.0, WIDTH + 1)}
    write_coefficients(replace(LIKE, mixes=mixes), tmp_path / "c.json")
    again = read_coefficients(tmp_path / "c.json")
    np.testing.assert_array_equal(again.mixes["one cpu"], mixes["one cpu"])


def test_groups_are_computed_one_by_one_in_the_measured_engine_alone() -> None:
    grouped = Workload(GROUPED, 1e6, 1e3, 1e3, in_channels=64, kernel=3, groups=8)
    plain = without_groups(grouped)
    assert (plain.family, plain.flop, plain.elements) == (CONV, grouped.flop, grouped.elements)


def test_networks_for_phones_have_the_arithmetic_of_their_papers() -> None:
    for name, expected in MOBILE.items():
        macs = sum(layer.flop for layer in layers_of_network(name, {})) / 2e6
        assert macs == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("name", "framework", "network"),
    [
        ("MobileNetV1_1.0_224", "TFLite", "mobilenet_w1"),
        ("mobilenet_v2_int8", "ncnn", "mobilenetv2_w1"),
        ("MobileNetV3-Large 0.75", "TFLite", "mobilenetv3_large_w3d4"),
        ("SqueezeNet", "TFLite", "squeezenet_v1_0"),
        ("squeezenet", "ncnn", "squeezenet_v1_1"),
        ("yolov4-tiny", "ncnn", "yolov4_tiny"),
        ("Inception-V4 (quant)", "TFLite", "inception_v4"),
        ("SqueezeNet1.0", "TNN v0.3", ""),
        ("squeezenet1_0", "ncnn", "squeezenet_v1_0"),
    ],
)
def test_names_are_read_as_their_framework_means_them(
    name: str, framework: str, network: str
) -> None:
    assert network_of(name, framework) == network


@pytest.mark.parametrize("network", sorted(set(NETWORKS.values())))
def test_every_name_has_layers_without_a_folder_of_them(network: str) -> None:
    layers = layers_of_network(network, {})
    assert sum(layer.flop for layer in layers) > 1e7
    assert not {layer.op for layer in layers} & {INPUT, OUTPUT, "Relu", "Add"}


def test_layers_of_a_folder_count_before_those_of_the_zoo() -> None:
    own = (Workload(CONV, 2e9, 1e3, 1e3),)
    assert layers_of_network("mobilenet_w1", {"mobilenet_w1": own}) is own
    assert layers_of_network("unheard_of", {}) == ()


def test_layers_that_a_folder_lacks_are_those_of_the_name() -> None:
    whole = layers_of_network("mobilenet_w1", {})
    assert layers_of_network("mobilenet_w1", {"mobilenet_w1": whole[::2]}) == whole
    few = (Workload(CONV, 1e6, 1e3, 1e3),)
    assert layers_of_network("unheard_of", {"unheard_of": few}) is few


def test_products_of_transformers_are_a_kind_of_their_own() -> None:
    call = Workload(CONV, 1e6, 1e3, 1e3, op="MatMul")
    plain = replace(call, op="")
    found = mixable(LIKE, find_soc(CHIPS[0]), CORE, "float32", [call, plain]).row
    assert found[KINDS.index(MATRICES)] == found[KINDS.index(POINTWISE)] > 0


def test_rows_of_ncnn_are_read_as_it_runs(tmp_path: Path) -> None:
    """Threads stay on big cores, and floats are computed in float16 where cores have it."""
    devices = {"Snapdragon 765G": "snapdragon-765g", "Snapdragon 835": "snapdragon-835"}
    rows = [
        dict(zip(NCNN_COLUMNS, (f"Qualcomm {name} (...)", 4, 2, gpu, model, 10), strict=True))
        for name in devices
        for gpu, model in ((-1, "alexnet"), (-1, "vgg16_int8"), (0, "mnasnet"), (-1, "unheard_of"))
    ]
    write_csv(tmp_path / "cpu_gpu_ncnn.csv", NCNN_COLUMNS, rows)
    samples, unknown = read_frameworks(tmp_path)
    assert [(each.line, each.name) for each in unknown] == [(5, "unheard_of"), (9, "unheard_of")]
    assert [(s.soc.name, s.processor, s.precision) for s in samples] == [
        ("snapdragon-765g", "cpu:1prime", "float16"),
        ("snapdragon-765g", "cpu:1prime", "int8"),
        ("snapdragon-765g", "gpu", "float16"),
        ("snapdragon-835", "cpu:4big", "float32"),
        ("snapdragon-835", "cpu:4big", "int8"),
        ("snapdragon-835", "gpu", "float16"),
    ]
    assert ncnn_cores(find_soc("snapdragon-855"), 8, 0) == "cpu:1prime+3big+4little"
    assert ncnn_cores(find_soc("snapdragon-855"), 2, 1) == "cpu:2little"
    assert ncnn_cores(find_soc("snapdragon-765g"), 2, 2) == "cpu:1prime+1big"

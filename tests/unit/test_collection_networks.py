"""Networks of the pytorchcv collection by name: parameters, arithmetic, layers as converted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.cost.calibration.collection import collection_layers, member
from coexec.cost.calibration.converted import converted_layers
from coexec.cost.calibration.kernels import read_shapes
from coexec.cost.calibration.networks import read_networks
from coexec.cost.soc.workload import CONV, DENSE, DEPTHWISE, REDUCE
from coexec.zoo import CATALOG, build
from coexec.zoo.families import FAMILIES
from coexec.zoo.layers import NONE, Layers
from tests.phones import write_csv

MEASURED = {
    "mobilenet_w1": (1_137_531_880, 16_911_920),
    "mobilenet_w3d4": (650_839_528, 10_337_200),
    "mobilenet_wd2": (299_020_264, 5_332_272),
    "mobilenet_wd4": (82_074_088, 1_896_980),
    "mobilenetb_w1": (1_137_531_880, 16_893_080),
    "mobilenetb_w3d4": (650_839_528, 10_321_304),
    "mobilenetb_wd2": (299_020_264, 5_319_436),
    "mobilenetb_wd4": (82_074_088, 1_887_244),
    "mobilenetv2_w1": (627_301_376, 14_006_628),
    "mobilenetv2_w3d4": (373_363_776, 10_513_776),
    "mobilenetv2_wd2": (184_604_800, 7_878_172),
    "mobilenetv2_wd4": (61_024_448, 6_100_664),
    "mobilenetv2b_w1": (601_611_264, 14_002_376),
    "mobilenetv2b_w3d4": (358_913_088, 10_510_536),
    "mobilenetv2b_wd2": (178_182_272, 7_876_068),
    "mobilenetv2b_wd4": (59_418_816, 6_099_464),
    "mobilenetv3_large_w1": (437_454_040, 21_966_344),
    "mobilenetv3_large_w3d4": (287_950_784, 17_062_864),
    "mobilenetv3_large_w5d4": (690_969_160, 29_797_068),
    "mobilenetv3_large_w7d20": (79_447_176, 11_815_844),
    "mobilenetv3_large_wd2": (139_048_648, 13_370_568),
    "mobilenetv3_small_w1": (116_031_656, 11_804_692),
    "mobilenetv3_small_w3d4": (82_894_488, 10_361_156),
    "mobilenetv3_small_w5d4": (179_207_872, 14_586_068),
    "mobilenetv3_small_w7d20": (27_763_840, 8_690_408),
    "mobilenetv3_small_wd2": (43_162_688, 9_202_208),
    "preresnet10": (1_780_291_048, 21_683_928),
    "preresnet12": (2_242_713_064, 21_982_312),
    "preresnet14": (2_705_135_080, 23_166_100),
    "preresnet16": (3_167_557_096, 27_890_368),
    "preresnet18": (3_629_979_112, 46_773_484),
    "preresnet18_w3d4": (2_250_691_048, 33_920_292),
    "preresnet18_wd2": (1_211_796_968, 23_235_428),
    "preresnet18_wd4": (538_986_984, 15_770_020),
    "preresnetbc14b": (2_939_493_352, 40_254_992),
    "preresnetbc26b": (4_686_420_968, 63_980_840),
    "regnetx002": (398_098_776, 10_684_516),
    "regnetx004": (795_374_952, 20_530_652),
    "regnetx006": (1_201_807_096, 24_687_380),
    "regnetx008": (1_599_433_352, 28_926_676),
    "regnetx016": (3_205_745_272, 36_629_524),
    "regnety002": (399_780_308, 12_604_732),
    "regnety004": (805_251_672, 17_311_308),
    "regnety006": (1_204_247_096, 24_140_736),
    "regnety008": (1_596_555_360, 24_970_152),
    "regnety016": (3_228_351_222, 44_666_480),
    "resnet10": (1_780_291_048, 21_674_984),
    "resnet12": (2_242_713_064, 21_972_348),
    "resnet14": (2_705_135_080, 23_154_808),
    "resnet16": (3_167_557_096, 27_877_236),
    "resnet18": (3_629_979_112, 46_757_488),
    "resnet18_w3d4": (2_250_691_048, 33_906_088),
    "resnet18_wd2": (1_211_796_968, 23_222_824),
    "resnet18_wd4": (538_986_984, 15_759_016),
    "resnetbc14b": (2_939_493_352, 40_236_352),
    "resnetbc26b": (4_686_420_968, 63_944_400),
    "seresnet10": (1_781_131_748, 21_862_944),
    "seresnet12": (2_243_956_264, 22_165_388),
    "seresnet14": (2_706_583_216, 23_359_288),
    "seresnet16": (3_169_122_240, 28_118_196),
    "seresnet18": (3_631_660_512, 47_134_292),
    "squeezenet_v1_0": (1_647_342_192, 5_020_348),
    "squeezenet_v1_1": (704_033_808, 4_968_884),
    "squeezeresnet_v1_0": (1_647_342_192, 5_021_488),
    "squeezeresnet_v1_1": (704_033_808, 4_969_660),
}
"""FLOP and bytes of the files that were measured on phones (qed-usc/mobile-ml-benchmark)."""
PARAMETERS = {
    "resnet10": 5_418_792,
    "resnet12": 5_492_776,
    "resnetbc14b": 10_064_936,
    "resnet18_wd4": 3_937_400,
    "resnet26": 17_960_232,
    "resnetbc26b": 15_995_176,
    "resnet34": 21_797_672,
    "resnetbc38b": 21_925_416,
    "resnet50": 25_557_032,
    "resnet50b": 25_557_032,
    "resnet152": 60_192_808,
    "preresnet10": 5_417_128,
    "preresnetbc14b": 10_057_384,
    "preresnet18": 11_687_848,
    "preresnet26": 17_958_568,
    "preresnetbc26b": 15_987_624,
    "preresnet34": 21_796_008,
    "preresnetbc38b": 21_917_864,
    "preresnet50": 25_549_480,
    "seresnet10": 5_463_332,
    "seresnet18": 11_778_592,
    "seresnet26": 18_093_852,
    "seresnetbc26b": 17_395_976,
    "seresnetbc38b": 24_026_616,
    "seresnet50": 28_088_024,
    "sepreresnet10": 5_461_668,
    "sepreresnet18": 11_776_928,
    "sepreresnet26": 18_092_188,
    "sepreresnetbc26b": 17_388_424,
    "sepreresnetbc38b": 24_019_064,
    "sepreresnet50": 28_080_472,
    "resnext14_16x4d": 7_127_336,
    "resnext14_32x2d": 7_029_416,
    "resnext14_32x4d": 9_411_880,
    "resnext26_32x2d": 9_924_136,
    "resnext26_32x4d": 15_389_480,
    "resnext50_32x4d": 25_028_904,
    "resnext101_64x4d": 83_455_272,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "fdmobilenet_w1": 2_901_288,
    "fdmobilenet_wd4": 383_160,
    "fdmobilenet_wd2": 993_928,
    "fdmobilenet_w3d4": 1_833_304,
    "mobilenet_w1": 4_231_976,
    "mobilenet_wd4": 470_072,
    "squeezenet_v1_0": 1_248_424,
    "squeezenet_v1_1": 1_235_496,
    "squeezeresnet_v1_0": 1_248_424,
    "regnetx032": 15_296_552,
    "regnety032": 19_436_338,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b7": 66_347_960,
    "mnasnet_b1": 4_383_312,
    "mnasnet_a1": 3_887_038,
    "mnasnet_small": 2_030_264,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "bn_vgg11b": 132_868_840,
    "alexnet": 62_378_344,
    "alexnetb": 61_100_840,
    "darknet_tiny": 1_042_104,
    "darknet_ref": 7_319_416,
    "darknet53": 41_609_928,
    "shufflenet_g1_w1": 1_531_936,
    "shufflenet_g8_w1": 2_434_768,
    "shufflenet_g3_wd4": 305_902,
    "shufflenetv2_wd2": 1_366_792,
    "shufflenetv2_w1": 2_278_604,
    "shufflenetv2_w3d2": 4_406_098,
    "shufflenetv2_w2": 7_601_686,
    "sqnxt23_w1": 724_056,
    "sqnxt23v5_w3d2": 1_953_616,
    "igcv3_w1": 3_491_688,
    "igcv3_wd4": 1_534_020,
    "peleenet": 2_802_248,
    "spnasnet": 4_421_616,
    "fbnet_cb": 5_572_200,
    "proxylessnas_cpu": 4_361_648,
    "proxylessnas_gpu": 7_119_848,
    "proxylessnas_mobile": 4_080_512,
    "proxylessnas_mobile14": 6_857_568,
    "menet108_8x1_g3": 654_516,
    "menet128_8x1_g4": 750_796,
    "menet160_8x1_g8": 850_120,
    "menet228_12x1_g3": 1_806_568,
    "menet256_12x1_g4": 1_888_240,
    "menet348_12x1_g3": 3_368_128,
    "menet352_12x1_g8": 2_272_872,
    "menet456_24x1_g3": 5_304_784,
    "mixnet_s": 4_134_606,
    "mixnet_m": 5_014_382,
    "mixnet_l": 7_329_252,
    "hardnet39ds": 3_488_228,
    "hardnet68ds": 4_180_602,
    "hardnet68": 17_565_348,
    "hardnet85": 36_670_212,
    "senet16": 31_366_168,
    "senet28": 36_453_768,
    "senet154": 115_088_984,
    "dpn68": 12_611_602,
    "dpn68b": 12_611_602,
    "dpn98": 61_570_728,
    "dpn107": 86_917_800,
    "dpn131": 79_254_504,
}
"""The collection's own table."""
ARITHMETIC = {
    "menet160_8x1_g8": 45.63,
    "menet228_12x1_g3": 152.93,
    "menet256_12x1_g4": 150.65,
    "menet348_12x1_g3": 312.00,
    "menet352_12x1_g8": 157.35,
    "menet456_24x1_g3": 567.90,
    "mixnet_s": 260.26,
    "mixnet_m": 366.05,
    "mixnet_l": 590.45,
    "hardnet39ds": 437.52,
    "hardnet68ds": 788.86,
    "hardnet68": 4256.32,
    "hardnet85": 9088.58,
    "senet16": 5080.55,
    "senet28": 5731.20,
    "senet154": 20745.78,
    "dpn68": 2351.84,
    "dpn98": 11716.51,
    "dpn131": 16076.15,
}
"""Millions of multiply-adds, of the same table; activations and normalisation count there, too."""
FOLDER = os.environ.get("COEXEC_MEASUREMENTS", "")
"""A folder with ``gpu_ops_tflite.csv``, whose layers are compared one by one."""


def graph_of(name: str) -> ir.Graph:
    found = member(name)
    assert found is not None
    entry = CATALOG[found.network]
    return entry.builder(1, entry.classes, **dict(found.options)).graph


@pytest.mark.parametrize("name", MEASURED)
def test_arithmetic_and_size_are_those_of_the_measured_file(name: str) -> None:
    """A file has biases and, for gates, a few products more; and names beside its weights."""
    flop, nbytes = MEASURED[name]
    layers = collection_layers(name)
    assert 0.97 * flop < sum(layer.flop for layer in layers) <= flop
    weights = sum(layer.weights + layer.out_channels for layer in layers if layer.weights)
    assert 4 * weights == pytest.approx(nbytes, rel=0.015)


@pytest.mark.skipif(not FOLDER, reason="COEXEC_MEASUREMENTS names no folder")
@pytest.mark.parametrize("name", MEASURED)
def test_layers_are_those_of_the_measured_file(name: str) -> None:
    own = read_shapes(Path(FOLDER))[name]
    assert Counter(collection_layers(name)) == Counter(own)


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters_are_as_many_as_the_collection_says(name: str, count: int) -> None:
    values = graph_of(name).initializers.items()
    sizes = (v.const_value.size for k, v in values if ".running_" not in k and v.const_value)
    assert sum(sizes) == count


@pytest.mark.parametrize(("name", "millions"), ARITHMETIC.items())
def test_arithmetic_is_that_of_the_collection(name: str, millions: float) -> None:
    found = sum(layer.flop for layer in collection_layers(name)) / 2e6
    assert 0.87 * millions < found <= millions


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resnet",
        "resnet19",
        "resnet18_w0",
        "regnetx999",
        "mobilenetv4_w1",
        "toaster",
        "resnet18x",
        "menet229_12x1_g3",
        "hardnet40",
        "senet18",
        "dpn69",
    ],
)
def test_what_the_collection_does_not_have_has_no_layers(name: str) -> None:
    assert collection_layers(name) == ()


def test_names_of_a_file_need_no_layers_beside_them(tmp_path: Path) -> None:
    columns = ("model", "soc", "proc", "cores", "precision", "mean_us")
    rows = [
        dict(zip(columns, (name, "Snapdragon855", "CPU", "1large", "fp32", 1e4), strict=True))
        for name in ("sepreresnetbc26b", "regnety032", "fdmobilenet_wd2", "never_heard_of")
    ]
    write_csv(tmp_path / "e2e_tflite.csv", columns, rows)
    samples, unknown = read_networks(tmp_path)
    assert [sample.model for sample in samples] == [str(row["model"]) for row in rows[:3]]
    assert [each.name for each in unknown] == ["never_heard_of"]


def test_zeros_around_a_map_count_where_the_converter_leaves_them() -> None:
    layers = Layers("two", 1, (4, 8, 8), 0)
    model = layers.finish(layers.depthwise(layers.conv(layers.x, 4, 3), 3, stride=2))
    sizes = [layer.in_elements / 4 for layer in converted_layers(model)]
    assert sizes == [8 * 8, 10 * 10]
    sizes = [layer.in_elements / 4 for layer in converted_layers(model, padded=True)]
    assert sizes == [10 * 10, 10 * 10]


def test_a_kernel_goes_on_while_it_has_all_that_it_needs() -> None:
    """A sum belongs to the kernel of the operand that comes last, a product by a gate to none."""
    layers = Layers("three", 1, (4, 8, 8), 0)
    x = layers.conv(layers.x, 4)
    early = layers.conv(x, 4, act=NONE)
    late = layers.conv(x, 4, act=NONE)
    x = layers.excite(layers.activate(layers.add(early, late), "relu"), 2)
    found = converted_layers(layers.logits(x, 10))
    assert [layer.family for layer in found] == [CONV] * 3 + [REDUCE] + [DENSE] * 2 + [
        REDUCE,
        DENSE,
    ]
    assert [layer.others for layer in found] == [0, 0, 4 * 8 * 8, 0, 0, 0, 0, 0]


def test_the_last_mean_may_be_a_pool() -> None:
    kernels = [
        layer.kernel for layer in collection_layers("mobilenetv2_w1") if layer.family == REDUCE
    ]
    assert kernels == [7]
    assert {layer.kernel for layer in collection_layers("resnet18") if layer.family == REDUCE} == {
        1
    }
    assert DEPTHWISE in {layer.family for layer in collection_layers("mobilenetv2_w1")}


@pytest.mark.parametrize("network", FAMILIES)
def test_family_runs_in_onnxruntime(network: str, rng: np.random.Generator) -> None:
    side = 64 if network not in {"vgg", "alexnet"} else 96
    model = build(network, 2, 7, image_size=side)
    x: Array = rng.standard_normal((2, 3, side, side), np.float32)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y = np.asarray(session.run(["y"], {"x": x})[0])
    assert y.shape == (2, 7)
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("network", "options", "complaint"),
    [
        ("residual_network", {"depth": 11}, "10, 12, 14, 16, 18, 26, 34 deep, not 11"),
        ("regnet", {"millions": 300}, "200, 400, .* million multiply-adds, not 300"),
    ],
)
def test_a_size_that_a_family_does_not_come_in_is_named(
    network: str, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        build(network, **options)

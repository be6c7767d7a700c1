"""Public names of networks: what they mean has the size that their authors publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coexec.cost.calibration.framework_names import layers_of_network, network_of
from coexec.cost.calibration.npu import read_npu
from coexec.cost.calibration.zoo_names import at_224, plain_name, zoo_network
from tests.published_networks import assert_runs_image_by_image, multiply_adds, parameters

TORCHVISION = {
    "resnet152": 60_192_808,
    "resnext101_64x4d": 83_455_272,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "vgg13": 133_047_848,
    "vgg19_bn": 143_678_248,
    "alexnet": 61_100_840,
    "mobilenet_v3_large": 5_483_032,
    "mnasnet0_5": 2_218_512,
    "mnasnet1_3": 6_282_256,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_5": 3_503_624,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b7": 66_347_960,
    "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272,
    "regnet_x_400mf": 5_495_976,
    "regnet_y_1_6gf": 11_202_430,
    "regnet_y_800mf": 6_432_512,
    "squeezenet1_0": 1_248_424,
    "convnext_small": 50_223_688,
    "convnext_large": 197_767_336,
    "vit_b_16": 86_567_656,
    "vit_l_32": 306_535_400,
    "swin_s": 49_606_258,
}
"""torchvision's models."""
TIMM = {
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite4": 13_006_568,
    "mobilenetv4_conv_small": 3_774_024,
    "mobilenetv4_conv_medium": 9_715_512,
    "xception": 22_855_952,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "mobilenetv2_140": 6_108_776,
    "seresnet50": 28_088_024,
    "resnet_v2_50": 25_549_352,
    "regnetx_002": 2_684_792,
    "regnety_016": 11_202_430,
}
ULTRALYTICS = {
    "yolov5n": 1_867_405,
    "yolov5s": 7_225_885,
    "yolov5l": 46_533_693,
    "yolov5x": 86_705_005,
    "yolov8s": 11_156_544,
    "yolov8m": 25_886_080,
    "yolov8l": 43_668_288,
    "yolov8x": 68_200_608,
    "yolo11s": 9_443_760,
    "yolo11m": 20_091_712,
    "yolo11l": 25_340_992,
    "yolo11x": 56_919_424,
}
OTHERS: dict[str, float] = {
    "MobileOne-S0": 2_078_504,  # Vasu et al., 2023, as mobileone_s4
    "mobileone_s4": 14_838_352,
    "RepVGG-A0": 8_309_384,  # Ding et al., 2021, as repvgg_b1
    "repvgg_b1": 51_829_480,
    "PP-LCNet_x0_5": 1_880_856,  # timm, with lcnet_100
    "lcnet_100": 2_953_800,
    "pplcnet_x2_5": 9_000_000,  # Cui et al., 2021
    "YOLOX-Nano": 910_000,  # Ge et al., 2021, with the next three
    "yolox_tiny_416": 5_060_000,
    "yolox_m": 25_300_000,
    "yolox_x": 99_100_000,
    "YOLOv6s": 18_500_000,  # Li et al., 2023
    "EfficientFormerV2-S0": 3_600_256,  # timm, with those up to edgenext_base
    "efficientformerv2_s1": 6_185_560,
    "efficientformer_v2_s2": 12_710_112,
    "efficientformerv2_l": 26_322_288,
    "edgenext_xx_small": 1_327_216,
    "EdgeNeXt-XS": 2_336_804,
    "edgenext_small": 5_586_832,
    "edgenext_base": 18_511_292,
    "FastViT-T8": 3_996_040,  # timm, with the next three, once branches are folded
    "fastvit_t12": 7_508_840,
    "fastvit_sa12": 11_545_320,
    "fastvit_sa24": 21_501_288,
    "MobileViT-XS": 2_317_848,  # timm, with the next three
    "mobilevit_xxs": 1_272_024,
    "EfficientFormer-L3": 31_406_000,
    "efficientformer_l7": 82_229_328,
    "MobileFaceNet": 990_000 + 7_552,  # Chen et al., 2018, and the slopes of its activations
    "version-slim-320": 1.04e6 / 4,  # Linzaer, 2019, by bytes of files, with the next one
    "UltraFace_RFB_320": 1.11e6 / 4,
    "yolov7_640x640": 36_900_000,  # Wang et al., 2022
    "mobilenet_v1_0.25_128": 470_000,  # Howard et al., 2017, with mobilenet_v1_0.5_160
    "mobilenet_v1_0.5_160": 1_340_000,
    "efficientnetv2_b3": 14_358_406,  # Keras
    "bert_large_uncased": 334_092_288,  # Hugging Face, with fewer positions
    "all-MiniLM-L6-v2": 22_565_376,
    "gpunet_0": 11_900_000,  # Wang et al., 2022
    "ir_se_100": 65_500_000,  # Qualcomm AI Hub Models, with those of motion by their bytes
    "motion_key_points": 54.2e6 / 4 * 1.048576,
    "motion_generator": 174e6 / 4 * 1.048576,
}


@pytest.mark.parametrize(
    ("name", "count"), {**TORCHVISION, **TIMM, **ULTRALYTICS, **OTHERS}.items()
)
def test_a_name_means_a_network_of_the_published_size(name: str, count: float) -> None:
    network = zoo_network(name)
    assert network is not None
    assert parameters(*network) == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize(
    ("name", "macs"),
    {
        "mobilenet_v1_0.25_128": 14e6,  # Howard et al., 2017
        "mobilenet_v2_1.4_224": 582e6,  # Sandler et al., 2018
        "MobileNetV4-Conv-S": 0.19e9,  # timm, with mobilenetv4_conv_medium
        "mobilenetv4_conv_medium_256": 1.1e9,
        "mobilenet_edgetpu": 0.99e9,  # Howard, Gupta, 2019
        "efficientnet-lite0": 385e6,  # timm, with the next two
        "xception": 8.4e9,
        "deit_tiny_patch16_224": 1.26e9,
        "yolov5s": 16.5e9 / 2,  # Ultralytics
        "YOLOv8m": 78.9e9 / 2,
        "yolo11x": 194.9e9 / 2,
        "mobileone_s0": 275e6,  # Vasu et al., 2023, with mobileone_s4
        "mobileone_s4": 2978e6,
        "repvgg_a0": 1.4e9,  # Ding et al., 2021
        "lcnet_100": 155.7e6,  # timm
        "yolox_nano": 1.08e9 / 2,  # Ge et al., 2021, with yolox_m
        "yolox_m": 73.8e9 / 2,
        "yolov6s": 45.3e9 / 2,  # Li et al., 2023
        "efficientformerv2_s0": 396e6,  # timm, with efficientformerv2_l and those of edgenext
        "efficientformerv2_l": 2553e6,
        "edgenext_xx_small": 258e6,
        "edgenext_small": 1253e6,
        "mobilevit_xxs": 407e6,
        "efficientformer_l3": 3907e6,
        "yolov7": 104.7e9 / 2,  # Wang et al., 2022
    }.items(),
)
def test_arithmetic_of_a_name_is_the_published_one(name: str, macs: float) -> None:
    network = zoo_network(name)
    assert network is not None
    assert multiply_adds(*network) == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize(
    "names",
    [
        ("MobileNetV2-1.4", "mobilenet_v2_1.4", "mobilenetv2_x1_4", "MOBILENET_V2_140_int8"),
        ("EfficientNet-Lite3", "efficientnet_lite3_quant", "efficientnet-lite-3"),
        ("YOLOv8s", "yolov8s_det", "yolo_v8_s_w8a8", "YOLOv8-s-float"),
        ("PP-LCNet-1x", "pplcnet_x1_0", "LCNet", "lcnet_100"),
        ("YOLOX-Tiny", "yolox_tiny_416x416", "yolo_x_tiny"),
        ("ViT-B/16", "vit_b16", "vit_base_patch16", "google/vit-base-patch16"),
    ],
)
def test_signs_cases_and_element_types_change_no_network(names: tuple[str, ...]) -> None:
    assert len({zoo_network(name) for name in names}) == 1
    assert zoo_network(names[0]) is not None


def test_a_size_behind_a_name_is_that_of_the_image() -> None:
    assert zoo_network("mobilenet_v1_0.5_160") == (
        "mobilenet_v1",
        (("width", 0.5), ("image_size", 160)),
    )
    assert zoo_network("yolov8n_320x320") == (
        "yolov8",
        (*zoo_network("yolov8n")[1], ("image_size", 320)),  # type: ignore[index]
    )
    assert zoo_network("efficientnet_b3") == (
        "efficientnet",
        (("number", 3), ("image_size", 300)),
    )


@pytest.mark.parametrize(
    "name",
    [
        "HRNet_w18",
        "picodet",
        "humanseg",
        "unet",
        "yolov2",
        "resnet20",
        "regnet_x_7gf",
        "vit",
        "yolox",
        "",
    ],
)
def test_what_may_mean_several_networks_means_none(name: str) -> None:
    assert zoo_network(name) is None


def test_a_classifier_of_a_collection_of_npu_models_has_its_size() -> None:
    network = zoo_network("efficientnet_b2")
    assert network is not None
    assert at_224(network) == ("efficientnet", (("number", 2), ("image_size", 224)))
    assert at_224(("yolov5m", ())) == ("yolov5m", ())


def test_tables_and_npu_rows_know_these_names(tmp_path: Path) -> None:
    assert network_of("TNN's own", "TNN v0.3") == network_of("SqueezeNet1.0", "TNN v0.3") == ""
    name = network_of("YOLOv8s (fp16)", "MNN")
    assert sum(layer.flop for layer in layers_of_network(name, {})) == pytest.approx(28.6e9, 0.05)
    (tmp_path / "npu_hexagon.csv").write_text(
        "model_id,component,precision,device,inference_ms,layers_npu\n"
        "efficientnet_b2,EfficientNet-B2,float,Samsung Galaxy S24,1.5,300\n"
        "sam,SAMEncoderPart2,float,Samsung Galaxy S24,50,70\n"
        "unet,Unet,float,Samsung Galaxy S24,50,70\n",
        encoding="utf-8",
    )
    samples, unknown = read_npu(tmp_path)
    assert [sample.model for sample in samples] == ["efficientnet", "sam_vit_encoder"]
    assert [each.name for each in unknown] == ["unet"]


def test_what_element_types_add_to_a_name_is_left_out() -> None:
    assert plain_name("EfficientNet-B0 (int8)") == "efficientnet_b0"
    assert plain_name("yolov8n_det_w8a8") == "yolov8n"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficientnet", {"image_size": 64, "lite": True}),
        ("efficientnet_v2", {"image_size": 64, "number": 1}),
        ("mobilenet_v4_small", {"image_size": 64}),
        ("mobilenet_v4_medium", {"image_size": 64}),
        ("mobilenet_edgetpu", {"image_size": 64}),
        ("xception", {"image_size": 96}),
        ("convnext", {"image_size": 64, "width": 32, "depth": 3}),
        ("vision_transformer", {"image_size": 32, "depth": 2, "scaled": True}),
        ("bert_encoder", {"tokens": 8, "depth": 2, "features": 128, "heads": 2}),
        ("yolov5", {"image_size": 64, "width": 0.25}),
        ("yolov8", {"image_size": 64, "width": 0.25}),
        ("yolo11", {"image_size": 64, "width": 0.25}),
        ("mobile_one", {"image_size": 64, "number": 4}),
        ("rep_vgg", {"image_size": 64}),
        ("efficientformer_v2", {"image_size": 64}),
        ("edgenext", {"image_size": 64}),
        ("fastvit", {"image_size": 64, "number": 3}),
        ("mobilevit_xxs", {"image_size": 64}),
        ("efficientformer_l3", {"image_size": 64}),
        ("mobile_face_net", {"image_size": 32}),
        ("ultra_face", {"height": 48, "width": 64}),
        ("yolov6s", {"image_size": 64}),
        ("lcnet", {"image_size": 64, "width": 0.25}),
        ("yolox", {"image_size": 64, "width": 0.25, "separable": True}),
        ("yolov7", {"image_size": 64}),
        ("ir_se_100", {"image_size": 32, "classes": 8}),
        ("gpunet_0", {"image_size": 64}),
        ("motion_key_points", {"image_size": 128}),
        ("motion_generator", {"image_size": 128}),
        ("sam_vit_encoder", {"image_size": 256, "first": 1, "last": 3}),
        ("sam_vit_encoder", {"image_size": 64, "first": 11, "last": 12}),
        ("sam_vit_encoder", {"image_size": 64, "last": 1}),
    ],
    ids=str,
)
def test_family_runs_in_onnxruntime_image_by_image(
    name: str, options: dict[str, int], rng: np.random.Generator
) -> None:
    assert_runs_image_by_image(name, options, rng)

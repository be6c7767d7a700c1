"""Networks of the zoo that are measured on phones: sizes, layers and that other tools run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coexec.cost.calibration.zoo_networks import zoo_layers
from coexec.cost.soc.workload import INPUT, OUTPUT
from coexec.zoo import build
from coexec.zoo.published import PUBLISHED
from tests.published_networks import assert_runs_image_by_image, multiply_adds, parameters

TORCHVISION = {
    "resnet34": 21_797_672,
    "resnet101": 44_549_160,
    "resnext50": 25_028_904,
    "resnext101": 88_791_336,
    "wide_resnet50": 68_883_240,
    "googlenet": 6_624_904,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b4": 19_341_616,
    "efficientnet_v2_s": 21_458_488,
    "mnasnet": 4_383_312,
    "shufflenet_v2": 2_278_604,
    "regnet_y_400mf": 4_344_144,
    "regnet_y_800mf": 6_432_512,
    "regnet_x_3_2gf": 15_296_552,
    "convnext_tiny": 28_589_128,
    "convnext_base": 88_591_464,
    "vit_b16": 86_567_656,
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "resnet_3d": 33_371_472,
    "resnet_mixed": 11_695_440,
    "resnet_2plus1d": 31_505_325,
    # without the second classifier of the training
    "inception_v3": 27_161_264 - 3_326_696,
    "fcn_resnet50": 35_322_218 - 2_365_205,
    "deeplabv3_resnet50": 42_004_074 - 2_365_205,
    "squeezenet_v1_0": 1_248_424,
    "vit_b32": 88_224_232,
}
"""torchvision's models with the classes of its weights."""
AUTHORS = {
    "mobilenet_v1": 4_231_976,  # Howard et al., 2017: 4.2 million
    "hrnet_w32_pose": 28_500_000,  # Sun et al., 2019
    "esrgan": 16_697_987,  # Wang et al., 2018
    "unet": 31_000_000,  # milesial's code
    "yolov3_tiny": 8_850_000,  # Ultralytics, with yolov5m, yolov8n and yolo11n
    "yolov5m": 21_200_000,
    "yolov8n": 3_151_904,
    "yolo11n": 2_616_248,
    "yolov7_tiny": 6_200_000,  # Wang et al., 2022
    "ddrnet_23_slim": 5_700_000,  # Hong et al., 2021
    "bert": 109_514_298,  # Hugging Face, as distilbert and albert; fewer positions here
    "distilbert": 66_985_530,
    "albert": 11_221_680,
    "electra": 108_891_648 + 590_592 + 769,  # with its head
    "inception_v4": 42_679_816,  # timm, with inception_resnet_v2, mobilevit_s, efficientformer_l1
    "inception_resnet_v2": 55_843_464,
    "mobilevit_s": 5_578_632,
    "efficientformer_l1": 12_289_928,
    "levit_128s": 7_780_000,  # Graham et al., 2021
    "cvt_13": 19_980_000,  # Wu et al., 2021
    "segformer_b0": 3_752_694,  # Hugging Face
    "efficientnet_v2_b0": 7_139_704,  # Keras
    "proxyless_mobile": 4_080_512,  # Cai et al., 2019
    "shufflenet": 1_870_000,  # Zhang et al., 2018
    "yolov8n_seg": 3_409_968,  # Ultralytics, with yolo11n_seg
    "yolo11n_seg": 2_876_848,
    "yolox_s": 8_970_000,  # Ge et al., 2021
    "yolov10n": 2_300_000,  # Wang et al., 2024
    "yolov4_tiny": 6_060_000,  # Wang et al., 2021
    "mobilenet_ssd": 5_770_000,  # chuanqi305's file
    "efficientvit_b2": 24_330_712,  # Cai et al., 2023, with efficientvit_l2
    "efficientvit_l2": 63_707_016,
    "sinet": 86_900,  # Park et al., 2020
    "dla102x": 26_309_272,  # timm, with nasnet_large and nasnet_mobile
    "nasnet_large": 88_753_150,
    "nasnet_mobile": 5_289_978,
    "yolor_p6": 37_200_000,  # Wang et al., 2021
    "pidnet_s": 7_600_000,  # Xu et al., 2023
    "rtmpose_m": 17_900_000,  # Jiang et al., 2023
    "conditional_detr_resnet50": 44_000_000,  # Meng et al., 2021
    # Hugging Face; the cross keys and values of the decoder count to the encoder here
    "whisper_medium_encoder": 307_216_384 + 24 * (2 * 1024 + 1) * 1024,
    "whisper_turbo_encoder": 636_968_960 + 4 * (2 * 1280 + 1) * 1280,
    # less those, and without places of tokens
    "whisper_medium_decoder": 456_641_536 - 24 * (2 * 1024 + 1) * 1024 - 448 * 1024,
    "whisper_turbo_decoder": 171_909_120 - 4 * (2 * 1280 + 1) * 1280 - 448 * 1280,
    "whisper_large_v3_encoder": 636_968_960 + 32 * (2 * 1280 + 1) * 1280,
    "whisper_large_decoder": (1_543_304_960 - 636_784_640)
    - 32 * (2 * 1280 + 1) * 1280
    - 448 * 1280,
    "clip_vit_b16": 149_620_737 - 49_408 * 512,  # Hugging Face, without the table of words
    "nomic_embed": 137_000_000,  # Nussbaum et al., 2024
    "mobilebert": 36_596_538 - 128 * 512,  # Hugging Face, with wavlm_base_plus; fewer positions
    "wavlm_base_plus": 94_405_775,
}
AI_HUB = {
    "aot_gan": 15_200_000,
    "beit": 92_000_000,
    "bisenet": 12_000_000,
    "blazeface": 135_000,
    "box3d_vgg19": 46_100_000,
    "craft": 20_800_000,
    "deeplab_xception": 41_260_000,
    "depth_anything": 24_700_000,
    "detr_resnet50": 41_400_000,
    "face_detection": 878_000,
    "face_landmarks": 603_000,
    "ffnet_40s": 13_900_000,
    "ffnet_54s": 18_000_000,
    "ffnet_78s": 27_500_000,
    "gear_guard": 6_190_000,
    "palm_detector": 1_760_000,
    "pspnet101": 65_700_000,
    "quicksrnet_small": 33_300,
    "real_esrgan_general": 1_210_000,
    "selfie_segmentation": 106_000,
    "sesr_m5": 343_000,
    "trocr_encoder": 23_000_000,
    "video_mae": 87_700_000,
    "xlsr": 28_000,
    "deeplab_mobilenet": 5_800_000,
    "fastsam_s": 11_800_000,
    "fastsam_x": 72_200_000,
    "midas_small": 16_600_000,
    "openpose": 52_300_000,
    "pose_detector": 815_000,
    "posenet_mobilenet": 3_310_000,
    "whisper_tiny_encoder": 9_390_000,
    "whisper_tiny_decoder": 28_200_000,
    "whisper_base_encoder": 23_700_000,
    "yamnet": 3_730_000,
    "yolov6n": 4_680_000,
    "face_shape": 5_424_000,
    "ffnet_122ns": 32_100_000,
    "foot_track": 2_530_000,
    "hand_pose": 2_720_000,
    "hrnet_w18_face": 9_680_000,
    "hrnet_w48_ocr": 70_300_000,
    "rtmdet_m": 27_500_000,
    "efficientvit_l2_seg": 53_000_000,
    "lama_dilated": 45_600_000,
    "mobile_sam_encoder": 6_950_000,
    "salsanext": 6_710_000,
    "sam_decoder": 6_160_000,
    "pose_landmarks": 3_360_000,
    "sam2_encoder": 33_500_000,
    "bgnet": 77_800_000,
    "litehrnet_18": 1_110_000 + 16_200,  # once normalisation is folded
}
"""The cards of Qualcomm AI Hub Models."""
LAYERS = {
    "mobilenetv2": 104,
    "resnext50": 127,
    "resnext101": 246,
    "wide_resnet50": 127,
    "squeezenet": 71,
    "efficientnet_b4": 481,
    "efficientnet_v2_s": 507,
    "hrnet_w32_pose": 748,
    "unet": 52,
    "craft": 68,
    "bisenet": 81,
    "ddrnet_23_slim": 156,
    "ffnet_54s": 178,
    "ffnet_78s": 238,
    "pspnet101": 269,
    "blazeface": 148,
    "palm_detector": 197,
    "selfie_segmentation": 139,
    "quicksrnet_small": 12,
    "xlsr": 22,
    "real_esrgan_general": 73,
    "resnet_mixed": 53,
    "face_detection": 127,
}
"""Layers that AI Hub counts of each in floats: ours, its pre- and postprocessing, and views."""
TINY: dict[str, dict[str, Any]] = {
    "quicksrnet_small": {"image_size": 16},
    "xlsr": {"image_size": 16},
    "shufflenet_v2": {"image_size": 64},
    "mobilenet_v3_small": {"image_size": 64},
    "efficientnet_b0": {"image_size": 64},
    "selfie_segmentation": {"image_size": 64},
    "face_detection": {"height": 64, "width": 96},
    "yolo11n": {"image_size": 64},
    "albert": {"tokens": 8, "classes": 100},
    "resnet_mixed": {"image_size": 32, "frames": 4},
    "shufflenet": {"image_size": 64},
    "mobilevit_s": {"image_size": 64},
    "efficientformer_l1": {"image_size": 64},
    "levit_128s": {"image_size": 64},
    "cvt_13": {"image_size": 64},
    "segformer_b0": {"image_size": 64},
    "deeplab_mobilenet": {"image_size": 65},
    "midas_small": {"image_size": 64},
    "posenet_mobilenet": {"height": 65, "width": 33},
    "pose_detector": {"image_size": 64},
    "blazeface_features": {"image_size": 64},
    "yolov10n": {"image_size": 64},
    "yolo11n_seg": {"image_size": 64},
    "yolov4_tiny": {"image_size": 64},
    "mobilenet_ssd": {"image_size": 96},
    "squeezenet_ssd": {"image_size": 128},
    "mobilenet_yolo": {"image_size": 64},
    "mobilenetv2_yolov3": {"image_size": 64},
    "squeezenet_v1_0": {"image_size": 64},
    "whisper_tiny_encoder": {"frames": 20},
    "electra": {"tokens": 8, "depth": 2},
    "yamnet": {},
    "efficientvit_b2": {"image_size": 64},
    "sinet": {"image_size": 64},
    "dla102x": {"image_size": 64},
    "nasnet_large": {"image_size": 64},
    "nasnet_mobile": {"image_size": 64},
    "yolor_p6": {"image_size": 64},
    "yolov6n": {"image_size": 64},
    "hrnet_w18_face": {"image_size": 64},
    "pidnet_s": {"height": 128, "width": 128},
    "ffnet_122ns": {"height": 64, "width": 64},
    "foot_track": {"height": 64, "width": 64},
    "face_shape": {"image_size": 64},
    "hand_pose": {"image_size": 64},
    "rtmdet_m": {"image_size": 64},
    "rtmpose_m": {"height": 64, "width": 64},
    "conditional_detr_resnet50": {"image_size": 64},
    "efficientvit_l2_seg": {"height": 64, "width": 64},
    "salsanext": {"height": 16, "width": 32},
    "lama_dilated": {"image_size": 64},
    "clip_vit_b16": {"image_size": 32, "depth": 2},
    "nomic_embed": {"tokens": 8, "depth": 2},
    "mobilebert": {"tokens": 8, "classes": 100},
    "wavlm_base_plus": {"samples": 1600, "depth": 2},
    "mobile_sam_encoder": {"image_size": 128},
    "sam_decoder": {"side": 8},
    "pose_landmarks": {},
    "sam2_encoder": {"image_size": 320},
    "sam2_decoder": {"side": 8},
    "litehrnet_18": {"height": 64, "width": 64},
    "bgnet": {"image_size": 64},
}


@pytest.mark.parametrize(("name", "count"), {**TORCHVISION, **AUTHORS, **AI_HUB}.items())
def test_parameter_count_is_the_published_one(name: str, count: int) -> None:
    assert parameters(name) == pytest.approx(count, rel=0.01)


MACS = {
    "shufflenet": 137e6,  # Zhang et al., 2018
    "proxyless_mobile": 320e6,  # Cai et al., 2019
    "efficientnet_v2_b0": 720e6,  # Tan, Le, 2021
    "inception_v4": 12.28e9,  # timm, with inception_resnet_v2 and efficientformer_l1
    "inception_resnet_v2": 13.18e9,
    "efficientformer_l1": 1.3e9,
    "levit_128s": 305e6,  # Graham et al., 2021
    "cvt_13": 4.5e9,  # Wu et al., 2021
    "mobilevit_s": 2.0e9,  # Mehta, Rastegari, 2022
    "yolox_s": 13.4e9,  # Ge et al., 2021
    "yolov10n": 3.35e9,  # Wang et al., 2024
    "yolov8n_seg": 6.3e9,  # Ultralytics, with yolo11n_seg
    "yolo11n_seg": 5.2e9,
    "yolov4_tiny": 3.45e9,  # Wang et al., 2021
    "squeezenet_v1_0": 819e6,  # torchvision
    "efficientvit_b2": 1.6e9,  # Cai et al., 2023, with efficientvit_l2
    "efficientvit_l2": 6.9e9,
    "sinet": 64e6,  # Park et al., 2020
    "dla102x": 5.89e9,  # timm, with nasnet_large
    "nasnet_large": 23.9e9,
    "nasnet_mobile": 564e6,  # Zoph et al., 2018
    "yolor_p6": 163e9 / 4,  # Wang et al., 2021, at twice the height and width
    "yolov6n": 5.7e9,  # Li et al., 2023
    "pidnet_s": 47.6e9,  # Xu et al., 2023
    "rtmdet_m": 39.27e9,  # Lyu et al., 2022
    "rtmpose_m": 2.22e9,  # Jiang et al., 2023
    "efficientvit_l2_seg": 396e9,  # Cai et al., 2023
    "litehrnet_18": 205e6,  # Yu et al., 2021
    "sam_vit_encoder": 486e9,  # Kirillov et al., 2023
    "gpunet_0": 3.25e9 * (224 / 320) ** 2,  # Wang et al., 2022, at 320 x 320
    "bgnet": 58.45e9,  # Sun et al., 2022
}
"""Multiply-adds of products for one image, where they are published."""


@pytest.mark.parametrize(("name", "macs"), MACS.items())
def test_arithmetic_is_the_published_one(name: str, macs: float) -> None:
    assert multiply_adds(name) == pytest.approx(macs, rel=0.06)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_that_an_npu_was_measured_with(name: str) -> None:
    """Nodes that remain on the NPU: normalisation is folded, views and casts are few."""
    graph = (PUBLISHED[name].builder(1) if name in PUBLISHED else build(name, 1)).graph
    folded = {"Constant", "BatchNormalization", "Dropout", "Flatten", "Reshape"}
    count = sum(node.op_type not in folded for node in graph)
    count += sum(
        node.op_type == "BatchNormalization" and not _behind_convolution(node) for node in graph
    )
    assert LAYERS[name] - 8 <= count <= LAYERS[name]


def _behind_convolution(node: ir.Node) -> bool:
    value = node.inputs[0]
    source = None if value is None else value.producer()
    return source is not None and source.op_type in {"Conv", "ConvTranspose"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layer_has_a_size(name: str) -> None:
    layers = zoo_layers(name)
    assert (layers[0].op, layers[-1].op) == (INPUT, OUTPUT)
    assert all(layer.out_elements > 0 for layer in layers)
    assert sum(layer.flop for layer in layers) > 1e7


@pytest.mark.parametrize("name", PUBLISHED)
def test_declared_shapes_are_those_of_the_graph(name: str) -> None:
    entry = PUBLISHED[name]
    graph = entry.builder(1).graph
    assert tuple(graph.inputs[0].shape or ()) == (1, *entry.input_shape)
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", TINY)
def test_network_runs_in_onnxruntime_image_by_image(name: str, rng: np.random.Generator) -> None:
    assert_runs_image_by_image(name, TINY[name], rng)

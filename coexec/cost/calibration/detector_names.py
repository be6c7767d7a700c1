"""Names of detectors: YOLO, SSD, faces."""

from __future__ import annotations

from coexec.cost.calibration.name_parts import Network, Parts, Rules, named
from coexec.cost.calibration.zoo_networks import Options

YOLO = {
    "n": (1 / 3, 0.25),
    "s": (1 / 3, 0.5),
    "m": (2 / 3, 0.75),
    "l": (1.0, 1.0),
    "x": (4 / 3, 1.25),
}
"""Times of the large network's blocks and channels, by the size's letter."""
YOLO_V8_WIDEST, YOLO_11_WIDTHS = {"n": 1024, "s": 1024, "m": 768}, {"m": 1.0, "l": 1.0, "x": 1.5}
"""Where YOLOv8 stops to widen and YOLO11's channels, where they are not as for the others."""
YOLOX_SMALL = {"nano": (0.25, True), "tiny": (0.375, False)}
"""Times of the large network's channels, and whether convolutions are separable."""


def _yolov5(parts: Parts) -> Network:
    depth, width = YOLO[parts["size"]]
    return "yolov5", (("depth", depth), ("width", width))


def _yolov8(parts: Parts) -> Network:
    size = parts["size"]
    depth, width = YOLO[size]
    # The largest one is wider, not deeper.
    blocks = min(depth, 1.0)
    return "yolov8", (
        ("depth", blocks),
        ("width", width),
        ("widest", YOLO_V8_WIDEST.get(size, 512)),
    )


def _yolo11(parts: Parts) -> Network:
    size = parts["size"]
    width = YOLO_11_WIDTHS.get(size, YOLO[size][1])
    deep, widest = 2 if size in "lx" else 1, 1024 if size in "ns" else 512
    return "yolo11", (("depth", deep), ("width", width), ("widest", widest))


def _yolox(parts: Parts) -> Network:
    size = parts["size"]
    if size in YOLOX_SMALL:
        width, separable = YOLOX_SMALL[size]
        small: Options = (("separable", True),) if separable else ()
        return "yolox", (("depth", 1 / 3), ("width", width), ("image_size", 416), *small)
    depth, width = YOLO[size]
    return "yolox", (("depth", depth), ("width", width))


def _ultra_face(parts: Parts) -> Network:
    return "ultra_face", (("slim", True),) if parts["kind"] == "slim" else ()


DETECTORS: Rules = {
    r"yolo_?v5_?(?P<size>[nsmlx])(?:u)?": _yolov5,
    r"yolo_?v8_?(?P<size>[nsmlx])": _yolov8,
    r"yolo_?v?11_?(?P<size>[nsmlx])": _yolo11,
    r"yolo_?x_?(?P<size>nano|tiny|[smlx])": _yolox,
    r"mobile_?face_?net": named("mobile_face_net"),
    r"(?:ultra_?face|version)_?(?P<kind>rfb|slim)(?:_320)?": _ultra_face,
    r"ssd_?lite_?320_mobilenet_v3_large": named("ssdlite_mobilenet_v3_large"),
    r"ssd_?mobilenet_?v1": named("mobilenet_ssd"),
    r"yolo_?fastest_?(?:v?1\.?1)": named("yolo_fastest"),
}

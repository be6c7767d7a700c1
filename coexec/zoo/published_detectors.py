"""Detectors that are measured on phones: a part of :mod:`coexec.zoo.published`."""

from __future__ import annotations

from coexec.zoo import (
    nanodet,
    small_faces,
    ssdlite,
    yolo,
    yolo_fastest,
    yolo_rep,
    yolov7,
    yolox,
)
from coexec.zoo.entry import ZooEntry

DETECTORS: dict[str, ZooEntry] = {
    "yolov5": ZooEntry("YOLOv5 of any size", (3, 640, 640), yolo.yolov5),
    "yolov8": ZooEntry("YOLOv8 of any size", (3, 640, 640), yolo.yolov8),
    "yolo11": ZooEntry("YOLO11 of any size", (3, 640, 640), yolo.yolo11),
    "yolox": ZooEntry("YOLOX of any size", (3, 640, 640), yolox.yolox),
    "yolov6s": ZooEntry("YOLOv6 3.0, small", (3, 640, 640), yolo_rep.yolov6s),
    "yolov7": ZooEntry("YOLOv7", (3, 640, 640), yolov7.yolov7),
    "nanodet_m": ZooEntry("NanoDet-m", (3, 320, 320), nanodet.nanodet_m),
    "yolo_fastest": ZooEntry("Yolo-Fastest 1.1", (3, 320, 320), yolo_fastest.yolo_fastest),
    "yolo_fastest_v2": ZooEntry("Yolo-FastestV2", (3, 352, 352), yolo_fastest.yolo_fastest_v2),
    "fastest_det": ZooEntry("FastestDet", (3, 352, 352), yolo_fastest.fastest_det),
    "ultra_face": ZooEntry("faces in small images", (3, 240, 320), small_faces.ultra_face),
    "ssdlite_mobilenet_v2": ZooEntry(
        "SSDLite on MobileNetV2", (3, 320, 320), ssdlite.ssdlite_mobilenet_v2
    ),
    "ssdlite_mobilenet_v3_large": ZooEntry(
        "SSDLite on MobileNetV3, large", (3, 320, 320), ssdlite.ssdlite_mobilenet_v3_large
    ),
}

"""Families of networks: what is held out together to ask how far predictions carry.

A network has relatives, which tell a fit most of what there is to know of it: what MobileNetV2 of
half the width takes follows from the other widths. What predictions of a network unlike all others
are worth shows where its relatives are held out, too.
"""

from __future__ import annotations

import re

FAMILIES = {
    "transformers of text": "albert|.*bert|electra|nomic|opus|trocr_decoder|whisper|gpt|wavlm",
    "transformers of images": "beit|vi(t|sion_tr)|depth_any|swin|trocr_enc|video_mae|clip|levit"
    "|mobilevit|efficientvit|efficientformer|edgenext|fastvit",
    "DETR": ".*detr",
    "Segment Anything": "(mobile_)?sam",
    "MediaPipe": "blazeface|face_landmarks|palm|hand_|pose_|selfie",
    "scenes": "bisenet|ddrnet|deeplab|ffnet|pspnet|pidnet|sinet|unet|fcn|hrnet|segformer|bgnet",
    "resolution and style": "aot|lama|.*esrgan|quicksr|xlsr|sesr|faststyle",
    "diffusion": "diffusion|control_net",
    "branches folded": "mobile_one|rep_vgg",
    "MobileNet": "lcnet|mobile_face|ultra_face|(fd)?mobilenet(b?_w|_ssd|_yolo|_v1)",
    "inverted residuals": "mobilenet_?v[234]|mnasnet|proxyless|spnasnet|fbnet|mixnet|igcv3|ghostnet"
    "|efficientnet|ssdlite",
    "YOLO": "yolo|gear_guard|nanodet|fastest_det",
    "RegNet": "regnet",
    "SqueezeNet": "squeeze|sqnxt",
    "ShuffleNet": "shufflenet|menet",
    "residual networks": "(se)?(pre)?res(net|next)|wide_res|senet|dpn|dla|posenet|retinaface",
    "Inception": "googlenet|inception|xception",
    "VGG": "(bn_)?vgg|alexnet|box3d_vgg",
}
"""Beginnings of names, whatever their case; the first that fits."""
OTHERS = "others"
"""Networks of no family, held out together."""


def family_of(model: str) -> str:
    """The family of a network by its name in a sample."""
    name = model.lower()
    found = (family for family, begins in FAMILIES.items() if re.match(begins, name))
    return next(found, OTHERS)

"""Families of networks by one rule each, whose members differ in their options."""

from __future__ import annotations

from coexec.zoo import (
    alexnet,
    convnext,
    darknet,
    densenet,
    dpn,
    edgenext,
    efficientformer_v2,
    efficientnet,
    fastvit,
    ghostnet,
    hardnet,
    igcv3,
    image_transformer,
    lcnet,
    menet,
    mixnet,
    mobile_transformer,
    mobilenet_v4,
    peleenet,
    regnet,
    reparameterized,
    residual,
    searched,
    senet,
    shufflenet,
    small_faces,
    squeezenext,
    vgg,
    xception,
)
from coexec.zoo.entry import ZooEntry

IMAGE = (3, 224, 224)

FAMILIES: dict[str, ZooEntry] = {
    "residual_network": ZooEntry(
        "ResNet, ResNeXt, PreResNet, SE-ResNet of any depth",
        IMAGE,
        residual.residual_network,
    ),
    "regnet": ZooEntry("RegNetX or RegNetY of any size", IMAGE, regnet.regnet),
    "efficientnet": ZooEntry(
        "EfficientNet-B0 to B8, Lite 0 to 4", IMAGE, efficientnet.efficientnet
    ),
    "efficientnet_v2": ZooEntry("EfficientNetV2-B0 to B3", IMAGE, efficientnet.efficientnet_v2),
    "efficientnet_v2_m": ZooEntry(
        "EfficientNetV2, medium", (3, 480, 480), efficientnet.efficientnet_v2_m
    ),
    "efficientnet_v2_l": ZooEntry(
        "EfficientNetV2, large", (3, 480, 480), efficientnet.efficientnet_v2_l
    ),
    "mobilenet_v4_small": ZooEntry(
        "MobileNetV4, convolutions, small", IMAGE, mobilenet_v4.mobilenet_v4_small
    ),
    "mobilenet_v4_medium": ZooEntry(
        "MobileNetV4, convolutions, medium", (3, 256, 256), mobilenet_v4.mobilenet_v4_medium
    ),
    "mobilenet_edgetpu": ZooEntry("MobileNetEdgeTPU", IMAGE, mobilenet_v4.mobilenet_edgetpu),
    "xception": ZooEntry("Xception", (3, 299, 299), xception.xception),
    "convnext": ZooEntry("ConvNeXt of any size", IMAGE, convnext.convnext),
    "vision_transformer": ZooEntry(
        "ViT or DeiT of any size", IMAGE, image_transformer.vision_transformer
    ),
    "mnasnet_a1": ZooEntry("MnasNet-A1", IMAGE, efficientnet.mnasnet_a1),
    "mnasnet_small": ZooEntry("MnasNet, small", IMAGE, efficientnet.mnasnet_small),
    "densenet": ZooEntry("DenseNet of any depth", IMAGE, densenet.densenet),
    "vgg": ZooEntry("VGG of any depth, ImageNet", IMAGE, vgg.vgg),
    "alexnet": ZooEntry("AlexNet of 2012 or 2014", IMAGE, alexnet.alexnet),
    "darknet": ZooEntry("Darknet, reference or tiny", IMAGE, darknet.darknet),
    "shufflenet_v2_of_width": ZooEntry(
        "ShuffleNet V2 of any width", IMAGE, shufflenet.shufflenet_v2_of_width
    ),
    "squeezenext": ZooEntry("SqueezeNext of any width", IMAGE, squeezenext.squeezenext),
    "igcv3": ZooEntry("IGCV3 of any width", IMAGE, igcv3.igcv3),
    "peleenet": ZooEntry("PeleeNet", IMAGE, peleenet.peleenet),
    "ghostnet": ZooEntry("GhostNet", IMAGE, ghostnet.ghostnet),
    "spnasnet": ZooEntry("Single-Path NAS", IMAGE, searched.spnasnet),
    "fbnet_c": ZooEntry("FBNet-C", IMAGE, searched.fbnet_c),
    "proxyless_cpu": ZooEntry("ProxylessNAS for CPUs", IMAGE, searched.proxyless_cpu),
    "proxyless_gpu": ZooEntry("ProxylessNAS for GPUs", IMAGE, searched.proxyless_gpu),
    "proxyless_mobile_14": ZooEntry(
        "ProxylessNAS for phones, 1.4 times as wide", IMAGE, searched.proxyless_mobile_14
    ),
    "darknet53": ZooEntry("Darknet-53", IMAGE, darknet.darknet53),
    "menet": ZooEntry("MENet of any size", IMAGE, menet.menet),
    "mixnet": ZooEntry("MixNet-S, M or L by width", IMAGE, mixnet.mixnet),
    "hardnet": ZooEntry("HarDNet of any depth, plain or separable", IMAGE, hardnet.hardnet),
    "mobile_one": ZooEntry("MobileOne-S0 to S4", IMAGE, reparameterized.mobile_one),
    "rep_vgg": ZooEntry("RepVGG of any size", IMAGE, reparameterized.rep_vgg),
    "lcnet": ZooEntry("PP-LCNet of any width", IMAGE, lcnet.lcnet),
    "efficientformer_v2": ZooEntry(
        "EfficientFormerV2-S0, S1, S2 or L", IMAGE, efficientformer_v2.efficientformer_v2
    ),
    "edgenext": ZooEntry("EdgeNeXt of any size", (3, 256, 256), edgenext.edgenext),
    "mobilevit_xs": ZooEntry(
        "MobileViT, extra small", (3, 256, 256), mobile_transformer.mobilevit_xs
    ),
    "mobilevit_xxs": ZooEntry(
        "MobileViT, extra extra small", (3, 256, 256), mobile_transformer.mobilevit_xxs
    ),
    "efficientformer_l3": ZooEntry(
        "EfficientFormer-L3", IMAGE, mobile_transformer.efficientformer_l3
    ),
    "efficientformer_l7": ZooEntry(
        "EfficientFormer-L7", IMAGE, mobile_transformer.efficientformer_l7
    ),
    "fastvit": ZooEntry("FastViT of any size", (3, 256, 256), fastvit.fastvit),
    "mobile_face_net": ZooEntry(
        "MobileFaceNet, features of a face", (3, 112, 112), small_faces.mobile_face_net
    ),
    "senet": ZooEntry("SENet of any depth", IMAGE, senet.senet),
    "dpn": ZooEntry("dual path network of any depth", IMAGE, dpn.dpn),
}

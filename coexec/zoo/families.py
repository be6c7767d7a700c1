"""Families of networks by one rule each, whose members differ in their options."""

from __future__ import annotations

from coexec.zoo import (
    alexnet,
    darknet,
    densenet,
    dpn,
    efficientnet,
    ghostnet,
    hardnet,
    igcv3,
    menet,
    mixnet,
    peleenet,
    regnet,
    residual,
    searched,
    senet,
    shufflenet,
    squeezenext,
    vgg,
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
    "efficientnet": ZooEntry("EfficientNet-B0 to B8", IMAGE, efficientnet.efficientnet),
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
    "senet": ZooEntry("SENet of any depth", IMAGE, senet.senet),
    "dpn": ZooEntry("dual path network of any depth", IMAGE, dpn.dpn),
}

"""Networks that are measured on phones, in the form and at the size of their papers."""

from __future__ import annotations

from coexec.zoo import (
    bgnet,
    blaze,
    cavaface,
    clip,
    conv_transformer,
    convnext,
    cspnext,
    depth,
    detr,
    dla,
    efficientnet,
    efficientvit,
    faces,
    googlenet,
    gpunet,
    hrnet,
    image_transformer,
    inception_v4,
    inpainting,
    keypoints,
    litehrnet,
    mobile_transformer,
    mobilebert,
    mobilenet_v3,
    motion,
    nasnet,
    nomic,
    persons,
    pidnet,
    regnet,
    residual,
    salsanext,
    sam_decoder,
    sam_vit,
    segment_anything,
    segmentation,
    shufflenet,
    sinet,
    single_shot,
    speech,
    squeezenet_v1,
    street_scenes,
    super_resolution,
    swin,
    text_transformer,
    unet,
    vgg_features,
    video_resnet,
    wavlm,
    yolo,
    yolo_csp,
    yolo_rep,
    yolo_segments,
    yolo_variants,
    yolox,
)
from coexec.zoo.entry import ZooEntry
from coexec.zoo.published_detectors import DETECTORS
from coexec.zoo.published_generators import GENERATORS

PUBLISHED: dict[str, ZooEntry] = {
    **DETECTORS,
    **GENERATORS,
    "resnet34": ZooEntry("ResNet-34, ImageNet", (3, 224, 224), residual.resnet34),
    "resnet101": ZooEntry("ResNet-101, ImageNet", (3, 224, 224), residual.resnet101),
    "resnext50": ZooEntry("ResNeXt-50, 32 x 4", (3, 224, 224), residual.resnext50),
    "resnext101": ZooEntry("ResNeXt-101, 32 x 8", (3, 224, 224), residual.resnext101),
    "wide_resnet50": ZooEntry(
        "Wide ResNet-50, twice as wide", (3, 224, 224), residual.wide_resnet50
    ),
    "googlenet": ZooEntry("GoogLeNet", (3, 224, 224), googlenet.googlenet),
    "inception_v3": ZooEntry("Inception v3", (3, 299, 299), googlenet.inception_v3),
    "mobilenet_v1": ZooEntry("the first MobileNet", (3, 224, 224), mobilenet_v3.mobilenet_v1),
    "mobilenet_v3_large": ZooEntry(
        "MobileNetV3, large", (3, 224, 224), mobilenet_v3.mobilenet_v3_large
    ),
    "mobilenet_v3_small": ZooEntry(
        "MobileNetV3, small", (3, 224, 224), mobilenet_v3.mobilenet_v3_small
    ),
    "efficientnet_b0": ZooEntry("EfficientNet-B0", (3, 224, 224), efficientnet.efficientnet_b0),
    "efficientnet_b4": ZooEntry("EfficientNet-B4", (3, 380, 380), efficientnet.efficientnet_b4),
    "efficientnet_v2_s": ZooEntry(
        "EfficientNetV2, small", (3, 384, 384), efficientnet.efficientnet_v2_s
    ),
    "mnasnet": ZooEntry("MnasNet-B1", (3, 224, 224), efficientnet.mnasnet),
    "shufflenet_v2": ZooEntry(
        "ShuffleNet V2 at full width", (3, 224, 224), shufflenet.shufflenet_v2
    ),
    "regnet_y_400mf": ZooEntry(
        "RegNetY of 400 million multiply-adds", (3, 224, 224), regnet.regnet_y_400mf
    ),
    "regnet_y_800mf": ZooEntry(
        "RegNetY of 800 million multiply-adds", (3, 224, 224), regnet.regnet_y_800mf
    ),
    "regnet_x_3_2gf": ZooEntry(
        "RegNetX of 3.2 billion multiply-adds", (3, 224, 224), regnet.regnet_x_3_2gf
    ),
    "convnext_tiny": ZooEntry("ConvNeXt, tiny", (3, 224, 224), convnext.convnext_tiny),
    "convnext_base": ZooEntry("ConvNeXt, base", (3, 224, 224), convnext.convnext_base),
    "vit_b16": ZooEntry("ViT-Base on patches of 16", (3, 224, 224), image_transformer.vit_b16),
    "beit": ZooEntry("BEiT-Base", (3, 224, 224), image_transformer.beit),
    "swin_tiny": ZooEntry("Swin transformer, tiny", (3, 224, 224), swin.swin_tiny),
    "swin_small": ZooEntry("Swin transformer, small", (3, 224, 224), swin.swin_small),
    "swin_base": ZooEntry("Swin transformer, base", (3, 224, 224), swin.swin_base),
    "video_mae": ZooEntry("VideoMAE-Base", (3, 16, 224, 224), image_transformer.video_mae),
    "resnet_3d": ZooEntry(
        "ResNet-18 with 3-D convolutions", (3, 16, 112, 112), video_resnet.resnet_3d
    ),
    "resnet_mixed": ZooEntry(
        "ResNet-18, 3-D at first", (3, 16, 112, 112), video_resnet.resnet_mixed
    ),
    "resnet_2plus1d": ZooEntry(
        "ResNet-18, space then time", (3, 16, 112, 112), video_resnet.resnet_2plus1d
    ),
    "depth_anything": ZooEntry(
        "Depth Anything, small", (3, 518, 518), image_transformer.depth_anything
    ),
    "trocr_encoder": ZooEntry(
        "encoder of TrOCR, small", (3, 384, 384), image_transformer.trocr_encoder
    ),
    "trocr_decoder": ZooEntry(
        "a step of the decoder of TrOCR, small", (7177, 256), text_transformer.trocr_decoder
    ),
    "bert": ZooEntry("BERT-Base, masked words", (384,), text_transformer.bert),
    "distilbert": ZooEntry("DistilBERT, masked words", (384,), text_transformer.distilbert),
    "albert": ZooEntry("ALBERT-Base, masked words", (384,), text_transformer.albert),
    "opus_mt_encoder": ZooEntry("encoder of OPUS-MT", (256,), text_transformer.opus_mt_encoder),
    "opus_mt_decoder": ZooEntry(
        "a step of the decoder of OPUS-MT", (6145, 512), text_transformer.opus_mt_decoder
    ),
    "fcn_resnet50": ZooEntry("FCN on ResNet-50", (3, 520, 520), segmentation.fcn_resnet50),
    "deeplabv3_resnet50": ZooEntry(
        "DeepLab v3 on ResNet-50", (3, 520, 520), segmentation.deeplabv3_resnet50
    ),
    "deeplab_xception": ZooEntry(
        "DeepLab v3+ on Xception-65", (3, 480, 520), segmentation.deeplab_xception
    ),
    "pspnet101": ZooEntry("PSPNet on ResNet-101", (3, 473, 473), segmentation.pspnet101),
    "unet": ZooEntry("U-Net", (3, 640, 1280), unet.unet),
    "ffnet_40s": ZooEntry("FFNet-40S for street scenes", (3, 1024, 2048), street_scenes.ffnet_40s),
    "ffnet_54s": ZooEntry("FFNet-54S for street scenes", (3, 1024, 2048), street_scenes.ffnet_54s),
    "ffnet_78s": ZooEntry("FFNet-78S for street scenes", (3, 1024, 2048), street_scenes.ffnet_78s),
    "bisenet": ZooEntry("BiSeNet on ResNet-18", (3, 720, 960), street_scenes.bisenet),
    "ddrnet_23_slim": ZooEntry("DDRNet-23-slim", (3, 1024, 2048), street_scenes.ddrnet_23_slim),
    "hrnet_w32_pose": ZooEntry("HRNet-W32 for poses", (3, 256, 192), hrnet.hrnet_w32_pose),
    "detr_resnet50": ZooEntry("DETR on ResNet-50", (3, 480, 480), detr.detr_resnet50),
    "detr_resnet101": ZooEntry("DETR on ResNet-101", (3, 480, 480), detr.detr_resnet101),
    "detr_resnet50_dc5": ZooEntry(
        "DETR on a dilated ResNet-50", (3, 480, 480), detr.detr_resnet50_dc5
    ),
    "yolov3_tiny": ZooEntry("YOLOv3, tiny", (3, 416, 416), yolo.yolov3_tiny),
    "yolov5m": ZooEntry("YOLOv5, medium", (3, 640, 640), yolo.yolov5m),
    "yolov7_tiny": ZooEntry("YOLOv7, tiny", (3, 640, 640), yolo.yolov7_tiny),
    "yolov8n": ZooEntry("YOLOv8, nano", (3, 640, 640), yolo.yolov8n),
    "yolo11n": ZooEntry("YOLO11, nano", (3, 640, 640), yolo.yolo11n),
    "craft": ZooEntry("CRAFT, which finds text", (3, 608, 800), vgg_features.craft),
    "box3d_vgg19": ZooEntry("boxes in 3-D on VGG-19", (3, 224, 224), vgg_features.box3d_vgg19),
    "quicksrnet_small": ZooEntry(
        "QuickSRNet, small", (3, 128, 128), super_resolution.quicksrnet_small
    ),
    "quicksrnet_medium": ZooEntry(
        "QuickSRNet, medium", (3, 128, 128), super_resolution.quicksrnet_medium
    ),
    "quicksrnet_large": ZooEntry(
        "QuickSRNet, large", (3, 128, 128), super_resolution.quicksrnet_large
    ),
    "xlsr": ZooEntry("XLSR", (3, 128, 128), super_resolution.xlsr),
    "sesr_m5": ZooEntry("SESR-M5", (3, 128, 128), super_resolution.sesr_m5),
    "real_esrgan_general": ZooEntry(
        "compact network of Real-ESRGAN", (3, 128, 128), super_resolution.real_esrgan_general
    ),
    "esrgan": ZooEntry("ESRGAN", (3, 128, 128), super_resolution.esrgan),
    "aot_gan": ZooEntry("AOT-GAN, which fills holes in images", (4, 512, 512), inpainting.aot_gan),
    "blazeface": ZooEntry("BlazeFace for the back camera", (3, 256, 256), blaze.blazeface),
    "face_landmarks": ZooEntry("468 points of a face", (3, 192, 192), blaze.face_landmarks),
    "palm_detector": ZooEntry("palms of hands", (3, 256, 256), blaze.palm_detector),
    "hand_landmarks": ZooEntry("21 points of a hand", (3, 256, 256), blaze.hand_landmarks),
    "selfie_segmentation": ZooEntry("persons in selfies", (3, 256, 256), blaze.selfie_segmentation),
    "face_detection": ZooEntry("faces in grey images", (1, 480, 640), faces.face_detection),
    "face_attributes": ZooEntry("five attributes of a face", (3, 128, 128), faces.face_attributes),
    "gear_guard": ZooEntry("protective clothing", (3, 320, 192), faces.gear_guard),
    "squeezenet_v1_0": ZooEntry("SqueezeNet 1.0", (3, 224, 224), squeezenet_v1.squeezenet_v1_0),
    "inception_v4": ZooEntry("Inception-v4", (3, 299, 299), inception_v4.inception_v4),
    "inception_resnet_v2": ZooEntry(
        "Inception-ResNet-v2", (3, 299, 299), inception_v4.inception_resnet_v2
    ),
    "shufflenet": ZooEntry("ShuffleNet, three groups", (3, 224, 224), shufflenet.shufflenet),
    "efficientnet_v2_b0": ZooEntry(
        "EfficientNetV2-B0", (3, 224, 224), efficientnet.efficientnet_v2_b0
    ),
    "proxyless_mobile": ZooEntry(
        "ProxylessNAS for phones", (3, 224, 224), efficientnet.proxyless_mobile
    ),
    "vit_b32": ZooEntry("ViT-Base on patches of 32", (3, 384, 384), image_transformer.vit_b32),
    "mobilevit_s": ZooEntry("MobileViT, small", (3, 256, 256), mobile_transformer.mobilevit_s),
    "efficientformer_l1": ZooEntry(
        "EfficientFormer-L1", (3, 224, 224), mobile_transformer.efficientformer_l1
    ),
    "levit_128s": ZooEntry("LeViT-128S", (3, 224, 224), conv_transformer.levit_128s),
    "cvt_13": ZooEntry("CvT-13", (3, 224, 224), conv_transformer.cvt_13),
    "segformer_b0": ZooEntry("SegFormer-B0", (3, 512, 512), mobile_transformer.segformer_b0),
    "deeplab_mobilenet": ZooEntry(
        "DeepLab v3+ on MobileNetV2", (3, 513, 513), segmentation.deeplab_mobilenet
    ),
    "midas_small": ZooEntry("MiDaS v2.1, small", (3, 256, 256), depth.midas_small),
    "openpose": ZooEntry("OpenPose, 18 joints", (3, 224, 224), keypoints.openpose),
    "posenet_mobilenet": ZooEntry(
        "PoseNet on MobileNet", (3, 513, 257), keypoints.posenet_mobilenet
    ),
    "pose_detector": ZooEntry("BlazePose's detector", (3, 128, 128), blaze.pose_detector),
    "blazeface_features": ZooEntry(
        "BlazeFace for the front camera, no heads", (3, 128, 128), blaze.blazeface_features
    ),
    "mobilenet_ssd": ZooEntry("SSD on MobileNet", (3, 300, 300), single_shot.mobilenet_ssd),
    "squeezenet_ssd": ZooEntry("SSD on SqueezeNet", (3, 300, 300), single_shot.squeezenet_ssd),
    "mobilenet_yolo": ZooEntry("YOLOv2 on MobileNet", (3, 416, 416), single_shot.mobilenet_yolo),
    "mobilenetv2_yolov3": ZooEntry(
        "YOLOv3 on MobileNetV2", (3, 352, 352), single_shot.mobilenetv2_yolov3
    ),
    "yolov4_tiny": ZooEntry("YOLOv4, tiny", (3, 416, 416), yolo_variants.yolov4_tiny),
    "yolox_s": ZooEntry("YOLOX, small", (3, 640, 640), yolox.yolox_s),
    "yolov10n": ZooEntry("YOLOv10, nano", (3, 640, 640), yolo_variants.yolov10n),
    "yolov8n_seg": ZooEntry("YOLOv8, nano, with masks", (3, 640, 640), yolo_segments.yolov8n_seg),
    "yolo11n_seg": ZooEntry("YOLO11, nano, with masks", (3, 640, 640), yolo_segments.yolo11n_seg),
    "fastsam_s": ZooEntry("FastSAM, small", (3, 640, 640), yolo_segments.fastsam_s),
    "fastsam_x": ZooEntry("FastSAM, large", (3, 640, 640), yolo_segments.fastsam_x),
    "electra": ZooEntry("ELECTRA-Base, replaced words", (384,), text_transformer.electra),
    "whisper_tiny_encoder": ZooEntry(
        "encoder of Whisper, tiny", (80, 3000), speech.whisper_tiny_encoder
    ),
    "whisper_base_encoder": ZooEntry(
        "encoder of Whisper, base", (80, 3000), speech.whisper_base_encoder
    ),
    "whisper_small_encoder": ZooEntry(
        "encoder of Whisper, small", (80, 3000), speech.whisper_small_encoder
    ),
    "whisper_tiny_decoder": ZooEntry(
        "a step of the decoder of Whisper, tiny", (13601, 384), speech.whisper_tiny_decoder
    ),
    "whisper_base_decoder": ZooEntry(
        "a step of the decoder of Whisper, base", (20401, 512), speech.whisper_base_decoder
    ),
    "whisper_small_decoder": ZooEntry(
        "a step of the decoder of Whisper, small", (40801, 768), speech.whisper_small_decoder
    ),
    "yamnet": ZooEntry("YAMNet, kinds of sounds", (1, 96, 64), speech.yamnet),
    "detr_resnet101_dc5": ZooEntry(
        "DETR on a dilated ResNet-101", (3, 480, 480), detr.detr_resnet101_dc5
    ),
    "efficientvit_b2": ZooEntry("EfficientViT-B2", (3, 224, 224), efficientvit.efficientvit_b2),
    "efficientvit_l2": ZooEntry("EfficientViT-L2", (3, 224, 224), efficientvit.efficientvit_l2),
    "sinet": ZooEntry("SINet, persons in portraits", (3, 224, 224), sinet.sinet),
    "dla102x": ZooEntry("DLA-X-102", (3, 224, 224), dla.dla102x),
    "nasnet_large": ZooEntry("NASNet-A, large", (3, 331, 331), nasnet.nasnet_large),
    "nasnet_mobile": ZooEntry("NASNet-A, mobile", (3, 224, 224), nasnet.nasnet_mobile),
    "yolor_p6": ZooEntry("YOLOR-P6", (3, 640, 640), yolo_csp.yolor_p6),
    "yolov6n": ZooEntry("YOLOv6 3.0, nano", (3, 640, 640), yolo_rep.yolov6n),
    "hrnet_w18_face": ZooEntry("HRNetV2-W18 for faces", (3, 256, 256), hrnet.hrnet_w18_face),
    "hrnet_w48_ocr": ZooEntry(
        "HRNetV2-W48 with objects as context", (3, 1024, 2048), hrnet.hrnet_w48_ocr
    ),
    "pidnet_s": ZooEntry("PIDNet-S for street scenes", (3, 1024, 2048), pidnet.pidnet_s),
    "ffnet_122ns": ZooEntry(
        "FFNet-122NS for street scenes", (3, 512, 1024), street_scenes.ffnet_122ns
    ),
    "foot_track": ZooEntry("persons and their feet", (3, 480, 640), persons.foot_track),
    "face_shape": ZooEntry("the shape of a face", (3, 128, 128), persons.face_shape),
    "hand_pose": ZooEntry("21 points of a hand, twice", (3, 224, 224), persons.hand_pose),
    "rtmdet_m": ZooEntry("RTMDet, medium", (3, 640, 640), cspnext.rtmdet_m),
    "rtmpose_m": ZooEntry("RTMPose, medium, all of a body", (3, 256, 192), cspnext.rtmpose_m),
    "conditional_detr_resnet50": ZooEntry(
        "conditional DETR on ResNet-50", (3, 480, 480), detr.conditional_detr_resnet50
    ),
    "whisper_medium_encoder": ZooEntry(
        "encoder of Whisper, medium", (80, 3000), speech.whisper_medium_encoder
    ),
    "whisper_medium_decoder": ZooEntry(
        "a step of the decoder of Whisper, medium", (81601, 1024), speech.whisper_medium_decoder
    ),
    "whisper_turbo_encoder": ZooEntry(
        "encoder of Whisper, large v3 turbo", (128, 3000), speech.whisper_turbo_encoder
    ),
    "whisper_turbo_decoder": ZooEntry(
        "a step of the decoder of Whisper, large v3 turbo",
        (13601, 1280),
        speech.whisper_turbo_decoder,
    ),
    "efficientvit_l2_seg": ZooEntry(
        "EfficientViT-L2 for street scenes", (3, 1024, 2048), efficientvit.efficientvit_l2_seg
    ),
    "salsanext": ZooEntry("SalsaNext, points of a lidar", (5, 64, 2048), salsanext.salsanext),
    "lama_dilated": ZooEntry(
        "LaMa of dilated convolutions", (4, 512, 512), inpainting.lama_dilated
    ),
    "clip_vit_b16": ZooEntry("CLIP, an image and a text", (189952,), clip.clip_vit_b16),
    "nomic_embed": ZooEntry("Nomic Embed, features of a text", (128,), nomic.nomic_embed),
    "mobilebert": ZooEntry("MobileBERT, masked words", (384,), mobilebert.mobilebert),
    "wavlm_base_plus": ZooEntry(
        "WavLM, base plus, letters of speech", (1, 160000), wavlm.wavlm_base_plus
    ),
    "mobile_sam_encoder": ZooEntry(
        "encoder of MobileSAM", (3, 1024, 1024), segment_anything.mobile_sam_encoder
    ),
    "sam_decoder": ZooEntry("decoder of SAM", (256, 4098, 1), sam_decoder.sam_decoder),
    "sam2_encoder": ZooEntry(
        "encoder of SAM 2, tiny", (3, 1024, 1024), segment_anything.sam2_encoder
    ),
    "sam2_decoder": ZooEntry("decoder of SAM 2", (256, 16387, 1), sam_decoder.sam2_decoder),
    "pose_landmarks": ZooEntry("31 points of a body", (3, 256, 256), blaze.pose_landmarks),
    "litehrnet_18": ZooEntry("Lite-HRNet-18 for poses", (3, 256, 192), litehrnet.litehrnet_18),
    "bert_encoder": ZooEntry("BERT of any size", (384,), text_transformer.bert_encoder),
    "ir_se_100": ZooEntry("IR-SE-100, features of a face", (3, 112, 112), cavaface.ir_se_100),
    "motion_key_points": ZooEntry("key points of a face", (3, 256, 256), motion.motion_key_points),
    "motion_generator": ZooEntry("a face, moved", (196_728,), motion.motion_generator),
    "gpunet_0": ZooEntry("GPUNet-0", (3, 224, 224), gpunet.gpunet_0),
    "sam_vit_encoder": ZooEntry(
        "encoder of SAM on ViT-Base", (3, 1024, 1024), sam_vit.sam_vit_encoder
    ),
    "whisper_large_encoder": ZooEntry(
        "encoder of Whisper, large", (80, 3000), speech.whisper_large_encoder
    ),
    "whisper_large_v3_encoder": ZooEntry(
        "encoder of Whisper, large v3", (128, 3000), speech.whisper_large_v3_encoder
    ),
    "whisper_large_decoder": ZooEntry(
        "a step of the decoder of Whisper, large", (108801, 1280), speech.whisper_large_decoder
    ),
    "bgnet": ZooEntry("BGNet, what is camouflaged", (3, 416, 416), bgnet.bgnet),
}

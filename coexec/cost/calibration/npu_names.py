"""Which network of the zoo, at which size, a collection of NPU models means by its names.

The names are those of Qualcomm AI Hub Models, whose code says at which sizes it runs them: image
classifiers at 224 x 224 unless it says otherwise.
"""

from __future__ import annotations

import re

from coexec.cost.calibration.zoo_networks import Options

Network = tuple[str, Options]
ENDINGS = re.compile(r"_(quantized|float|w8a8|w8a16|int8)$")
"""What an element type adds to a name."""
SIDE_224: Options = (("image_size", 224),)

WHOLE: dict[str, Network] = {
    "albert_base_v2_hf": ("albert", ()),
    "aotgan": ("aot_gan", ()),
    "beit": ("beit", ()),
    "bert_base_uncased_hf": ("bert", ()),
    "bisenet": ("bisenet", ()),
    "conditional_detr_resnet50": ("conditional_detr_resnet50", ()),
    "convnext_base": ("convnext_base", ()),
    "convnext_tiny": ("convnext_tiny", ()),
    "cvt": ("cvt_13", ()),
    "ddrnet23_slim": ("ddrnet_23_slim", ()),
    "deeplab_xception": ("deeplab_xception", ()),
    "deeplabv3_plus_mobilenet": ("deeplab_mobilenet", ()),
    "deeplabv3_resnet50": ("deeplabv3_resnet50", ()),
    "densenet121": ("densenet121", ()),
    "depth_anything": ("depth_anything", ()),
    "depth_anything_v2": ("depth_anything", ()),
    "detr_resnet101": ("detr_resnet101", ()),
    "detr_resnet101_dc5": ("detr_resnet101_dc5", ()),
    "detr_resnet50": ("detr_resnet50", ()),
    "detr_resnet50_dc5": ("detr_resnet50_dc5", ()),
    "distil_bert_base_uncased_hf": ("distilbert", ()),
    "dla102x": ("dla102x", ()),
    "efficientformer": ("efficientformer_l1", ()),
    "efficientnet_b0": ("efficientnet_b0", ()),
    "efficientnet_b4": ("efficientnet_b4", SIDE_224),
    "efficientnet_v2_s": ("efficientnet_v2_s", SIDE_224),
    "efficientvit_b2_cls": ("efficientvit_b2", ()),
    "efficientvit_l2_cls": ("efficientvit_l2", ()),
    "electra_bert_base_discrim_google": ("electra", ()),
    "esrgan": ("esrgan", ()),
    "face_attrib_net": ("face_attributes", ()),
    "face_det_lite": ("face_detection", ()),
    "facemap_3dmm": ("face_shape", ()),
    "fastsam_s": ("fastsam_s", ()),
    "fastsam_x": ("fastsam_x", ()),
    "fcn_resnet50": ("fcn_resnet50", ()),
    "ffnet_122ns_lowres": ("ffnet_122ns", ()),
    "ffnet_40s": ("ffnet_40s", ()),
    "ffnet_54s": ("ffnet_54s", ()),
    "ffnet_78s": ("ffnet_78s", ()),
    "ffnet_78s_lowres": ("ffnet_78s", (("height", 512), ("width", 1024))),
    "foot_track_net": ("foot_track", ()),
    "gear_guard_net": ("gear_guard", ()),
    "googlenet": ("googlenet", ()),
    "hrnet_face": ("hrnet_w18_face", ()),
    "hrnet_pose": ("hrnet_w32_pose", ()),
    "hrnet_w48_ocr": ("hrnet_w48_ocr", ()),
    "inception_v3": ("inception_v3", SIDE_224),
    "levit": ("levit_128s", ()),
    "mediapipe_selfie": ("selfie_segmentation", ()),
    "midas": ("midas_small", ()),
    "mnasnet05": ("mnasnet", (("width", 0.5),)),
    "mobile_vit": ("mobilevit_s", ()),
    "mobilenet_v2": ("mobilenetv2", ()),
    "mobilenet_v3_large": ("mobilenet_v3_large", ()),
    "mobilenet_v3_small": ("mobilenet_v3_small", ()),
    "nasnet": ("nasnet_large", SIDE_224),
    "openpose": ("openpose", ()),
    "pidnet": ("pidnet_s", ()),
    "posenet_mobilenet": ("posenet_mobilenet", ()),
    "pspnet": ("pspnet101", ()),
    "quicksrnetlarge": ("quicksrnet_large", ()),
    "quicksrnetmedium": ("quicksrnet_medium", ()),
    "quicksrnetsmall": ("quicksrnet_small", ()),
    "real_esrgan_general_x4v3": ("real_esrgan_general", ()),
    "real_esrgan_x4plus": ("esrgan", ()),
    "regnet": ("regnet_x_3_2gf", ()),
    "regnet_y_800mf": ("regnet_y_800mf", ()),
    "resnet101": ("resnet101", ()),
    "resnet18": ("resnet18_224", ()),
    "resnet34": ("resnet34", ()),
    "resnet50": ("resnet50", ()),
    "resnet_2plus1d": ("resnet_2plus1d", ()),
    "resnet_3d": ("resnet_3d", ()),
    "resnet_mixed": ("resnet_mixed", ()),
    "resnext101": ("resnext101", ()),
    "resnext50": ("resnext50", ()),
    "rtmdet": ("rtmdet_m", ()),
    "rtmpose_body2d": ("rtmpose_m", ()),
    "segformer_base": ("segformer_b0", ()),
    "sesr_m5": ("sesr_m5", ()),
    "shufflenet_v2": ("shufflenet_v2", ()),
    "sinet": ("sinet", ()),
    "squeezenet1_1": ("squeezenet", ()),
    "swin_base": ("swin_base", ()),
    "swin_small": ("swin_small", ()),
    "swin_tiny": ("swin_tiny", ()),
    "unet_segmentation": ("unet", ()),
    "video_mae": ("video_mae", ()),
    "vit": ("vit_b16", ()),
    "wideresnet50": ("wide_resnet50", ()),
    "xlsr": ("xlsr", ()),
    "yamnet": ("yamnet", ()),
    "yolor": ("yolor_p6", ()),
    "yolov10_det": ("yolov10n", ()),
    "yolov11_det": ("yolo11n", ()),
    "yolov11_seg": ("yolo11n_seg", ()),
    "yolov3": ("yolov3_tiny", (("height", 640), ("width", 640))),
    "yolov5": ("yolov5m", ()),
    "yolov6": ("yolov6n", ()),
    "yolov7": ("yolov7_tiny", ()),
    "yolov8_det": ("yolov8n", ()),
    "yolov8_seg": ("yolov8n_seg", ()),
    "yolox": ("yolox_s", ()),
}
"""Names of models that are one network."""
_LANGUAGES = ("opus_mt_en_es", "opus_mt_es_en", "opus_mt_en_zh", "opus_mt_zh_en")
PARTS: dict[tuple[str, str], Network] = {
    ("deepbox", "Yolo2DDetection"): ("yolov3_tiny", (("height", 224), ("width", 640))),
    ("deepbox", "VGG3DDetection"): ("box3d_vgg19", ()),
    ("easyocr", "EasyOCRDetector"): ("craft", ()),
    ("mediapipe_face", "FaceDetector"): ("blazeface", ()),
    ("mediapipe_face", "FaceLandmarkDetector"): ("face_landmarks", ()),
    ("mediapipe_hand", "PalmDetector"): ("palm_detector", ()),
    ("mediapipe_hand", "HandDetector"): ("palm_detector", ()),
    ("mediapipe_hand", "HandLandmarkDetector"): ("hand_landmarks", ()),
    ("mediapipe_hand_gesture", "PalmDetector"): ("palm_detector", ()),
    ("mediapipe_hand_gesture", "HandLandmarkDetector"): ("hand_pose", ()),
    ("mediapipe_pose", "PoseDetector"): ("pose_detector", ()),
    ("trocr", "TrOCRDecoder"): ("trocr_decoder", ()),
    ("trocr", "TrOCREncoder"): ("trocr_encoder", ()),
    **{(name, "OpusMTDecoder"): ("opus_mt_decoder", ()) for name in _LANGUAGES},
    **{(name, "OpusMTEncoder"): ("opus_mt_encoder", ()) for name in _LANGUAGES},
    **{
        (f"whisper_{size}{version}", f"{of}{part}{ending}"): (f"whisper_{size}_{part.lower()}", ())
        for size in ("tiny", "base", "small", "medium")
        for version in ("", "_en", "_v2")
        for part in ("Encoder", "Decoder")
        for of, ending in (("HfWhisper", ""), ("Whisper", "Inf"), ("Whisper", ""))
    },
    ("whisper_large_v3_turbo", "HfWhisperEncoder"): ("whisper_turbo_encoder", ()),
    ("whisper_large_v3_turbo", "HfWhisperDecoder"): ("whisper_turbo_decoder", ()),
}
"""Names of models of several networks, with the network's own."""

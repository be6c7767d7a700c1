"""Which network of the zoo, at which size, a collection of NPU models means by its names.

The names are those of Qualcomm AI Hub Models, whose code says at which sizes it runs them: image
classifiers at 224 x 224 unless it says otherwise.
"""

from __future__ import annotations

import re

from coexec.cost.calibration.name_parts import Network
from coexec.cost.calibration.zoo_names import at_224, zoo_network
from coexec.cost.calibration.zoo_networks import Options

ENDINGS = re.compile(r"_(quantized|float|w8a8|w8a16|int8)$")
"""What an element type adds to a name."""
PART_WORDS = re.compile(r"[^a-z0-9]|quantiz(?:ed|able)|w8a16|w8a8|mediapipe")
"""What names of a part may have in them that says nothing of which one it is."""
SIDE_224: Options = (("image_size", 224),)

WHOLE: dict[str, Network] = {
    "albert_base_v2_hf": ("albert", ()),
    "aotgan": ("aot_gan", ()),
    "beit": ("beit", ()),
    "bert_base_uncased_hf": ("bert", ()),
    "bgnet": ("bgnet", ()),
    "bisenet": ("bisenet", ()),
    "cavaface": ("ir_se_100", ()),
    "conditional_detr_resnet50": ("conditional_detr_resnet50", ()),
    "convnext_base": ("convnext_base", ()),
    "convnext_tiny": ("convnext_tiny", ()),
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
    "efficientvit_l2_seg": ("efficientvit_l2_seg", ()),
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
    "gpunet": ("gpunet_0", ()),
    "hrnet_face": ("hrnet_w18_face", ()),
    "hrnet_pose": ("hrnet_w32_pose", ()),
    "hrnet_w48_ocr": ("hrnet_w48_ocr", ()),
    "huggingface_wavlm_base_plus": ("wavlm_base_plus", ()),
    "inception_v3": ("inception_v3", SIDE_224),
    "lama_dilated": ("lama_dilated", ()),
    "levit": ("levit_128s", ()),
    "litehrnet": ("litehrnet_18", ()),
    "mediapipe_selfie": ("selfie_segmentation", ()),
    "midas": ("midas_small", ()),
    "mnasnet05": ("mnasnet", (("width", 0.5),)),
    "mobile_bert_uncased_google": ("mobilebert", ()),
    "mobile_vit": ("mobilevit_s", ()),
    "mobilenet_v2": ("mobilenetv2", ()),
    "mobilenet_v3_large": ("mobilenet_v3_large", ()),
    "mobilenet_v3_small": ("mobilenet_v3_small", ()),
    "nasnet": ("nasnet_large", SIDE_224),
    "nomic_embed_text": ("nomic_embed", ()),
    "openai_clip": ("clip_vit_b16", ()),
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
    "salsanext": ("salsanext", ()),
    "segformer_base": ("segformer_b0", ()),
    "sesr_m5": ("sesr_m5", ()),
    "shufflenet_v2": ("shufflenet_v2", ()),
    "sinet": ("sinet", ()),
    "squeezenet1_0": ("squeezenet_v1_0", ()),
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
_STABLE = ("stable_diffusion_v1_5", "riffusion", "controlnet", "controlnet_canny")
"""Models on Stable Diffusion 1.5."""
_SECOND: Options = (("second", True),)
_SECOND_TEXT: Options = (("features", 1024), ("depth", 23), *_SECOND)
_LANGUAGES = ("opus_mt_en_es", "opus_mt_es_en", "opus_mt_en_zh", "opus_mt_zh_en")
PARTS: dict[tuple[str, str], Network] = {
    ("deepbox", "Yolo2DDetection"): ("yolov3_tiny", (("height", 224), ("width", 640))),
    ("deepbox", "VGG3DDetection"): ("box3d_vgg19", ()),
    ("easyocr", "EasyOCRDetector"): ("craft", ()),
    ("fomm", "FOMMDetector"): ("motion_key_points", ()),
    ("fomm", "FOMMGenerator"): ("motion_generator", ()),
    ("mediapipe_face", "FaceDetector"): ("blazeface", ()),
    ("mediapipe_face", "FaceLandmarkDetector"): ("face_landmarks", ()),
    ("mediapipe_hand", "PalmDetector"): ("palm_detector", ()),
    ("mediapipe_hand", "HandDetector"): ("palm_detector", ()),
    ("mediapipe_hand", "HandLandmarkDetector"): ("hand_landmarks", ()),
    ("mediapipe_hand_gesture", "PalmDetector"): ("palm_detector", ()),
    ("mediapipe_hand_gesture", "HandLandmarkDetector"): ("hand_pose", ()),
    ("mediapipe_pose", "PoseLandmarkDetector"): ("pose_landmarks", ()),
    ("mediapipe_pose", "PoseDetector"): ("pose_detector", ()),
    ("mobilesam", "MobileSAMDecoder"): ("sam_decoder", ()),
    ("mobilesam", "MobileSAMEncoder"): ("mobile_sam_encoder", ()),
    ("sam", "SAMDecoder"): ("sam_decoder", ()),
    ("sam", "SAMEncoder"): ("sam_vit_encoder", ()),
    **{
        ("sam", f"SAMEncoderPart{part + 1}"): (
            "sam_vit_encoder",
            (("first", 2 * part), ("last", 2 * part + 2)),
        )
        for part in range(6)
    },
    ("sam2", "SAM2Decoder"): ("sam2_decoder", ()),
    ("sam2", "SAM2Encoder"): ("sam2_encoder", ()),
    ("trocr", "TrOCRDecoder"): ("trocr_decoder", ()),
    ("trocr", "TrOCREncoder"): ("trocr_encoder", ()),
    **{
        (name, part): network
        for name in _STABLE
        for part, network in (
            ("TextEncoder", ("diffusion_text_encoder", ())),
            ("Unet", ("diffusion_unet", ())),
            ("VaeDecoder", ("diffusion_decoder", ())),
            ("Vae", ("diffusion_decoder", ())),
            ("ControlNet", ("control_net", ())),
        )
    },
    **{
        ("stable_diffusion_v2_1", part): network
        for part, network in (
            ("TextEncoder", ("diffusion_text_encoder", _SECOND_TEXT)),
            ("Unet", ("diffusion_unet", _SECOND)),
            ("VaeDecoder", ("diffusion_decoder", ())),
            ("Vae", ("diffusion_decoder", ())),
        )
    },
    **{(name, "OpusMTDecoder"): ("opus_mt_decoder", ()) for name in _LANGUAGES},
    **{(name, "OpusMTEncoder"): ("opus_mt_encoder", ()) for name in _LANGUAGES},
    **{
        (f"whisper_{size}{version}", f"{of}{part}{ending}"): (f"whisper_{size}_{part.lower()}", ())
        for size in ("tiny", "base", "small", "medium")
        for version in ("", "_en", "_v2")
        for part in ("Encoder", "Decoder")
        for of, ending in (("HfWhisper", ""), ("Whisper", "Inf"), ("Whisper", ""))
    },
    ("whisper_large_v3", "HfWhisperEncoder"): ("whisper_large_v3_encoder", ()),
    ("whisper_large_v3", "HfWhisperDecoder"): ("whisper_large_decoder", ()),
    ("whisper_large_v3_turbo", "HfWhisperEncoder"): ("whisper_turbo_encoder", ()),
    ("whisper_large_v3_turbo", "HfWhisperDecoder"): ("whisper_turbo_decoder", ()),
}
"""Names of models of several networks, with the network's own."""


def _part(component: str) -> str:
    """A part's name by what tells it from others."""
    return PART_WORDS.sub("", component.lower())


_PLAIN_PARTS = {(model, _part(part)): network for (model, part), network in PARTS.items()}


def network_named(model_id: str, component: str) -> Network | None:
    """The network of a part of a model; ``None`` if that is not known.

    A model that is one network is that whatever its part is called.
    """
    model = model_id.lower().replace("-", "_")
    while (shorter := ENDINGS.sub("", model)) != model:
        model = shorter
    found = _PLAIN_PARTS.get((model, _part(component))) or WHOLE.get(model)
    if found is None and (known := zoo_network(model)):
        found = at_224(known)
    return found

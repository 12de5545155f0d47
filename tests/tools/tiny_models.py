"""Kinds of backbones that timm has no tiny one of, registered with timm."""

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

VIT = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
DEFAULT = {"input_size": (3, 64, 64), "fixed_input_size": True, "mean": (0.5,) * 3, "std": (0.5,) * 3}
NAMES = ("tiny_vit_without_cls", "tiny_vit_with_registers", "tiny_swin")
# timm looks up a model's data config under this name.
default_cfgs = generate_default_cfgs({name: DEFAULT for name in NAMES})


@register_model
def tiny_vit_without_cls(pretrained=False, **options):
    """A ViT of patch tokens alone, their mean normed after pooling."""
    settings = VIT | {"class_token": False, "global_pool": "avg"} | options
    return build_model_with_cfg(VisionTransformer, "tiny_vit_without_cls", pretrained, **settings)


@register_model
def tiny_vit_with_registers(pretrained=False, **options):
    """A ViT with CLS and two registers."""
    settings = VIT | {"reg_tokens": 2} | options
    return build_model_with_cfg(VisionTransformer, "tiny_vit_with_registers", pretrained, **settings)


@register_model
def tiny_swin(pretrained=False, **options):
    """A Swin whose last map is 8 x 8 at 64 px."""
    settings = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4} | options
    return build_model_with_cfg(SwinTransformer, "tiny_swin", pretrained, **settings)

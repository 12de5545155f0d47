"""sbir_mini, the kit's own small ViT, as a timm model."""

from typing import Any

from einops import rearrange
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sbirlib.layers.weights import BackboneError


class ConvStem(nn.Module):
    """(b, 3, s, s) -> (b, n, d), n = (s / 12)^2: strided convolutions, whose strides multiply to 12.

    From a few hundred photos a plain patch embedding learns nothing; this one does. GroupNorm, because
    sketches and photos in turn would ruin the running statistics of BatchNorm.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: object) -> None:
        super().__init__()
        if img_size % patch_size:
            raise BackboneError(f"images of {img_size} px: that is no multiple of patch size {patch_size}")
        self.layers = nn.Sequential(
            *_convolution(in_chans, embed_dim // 4, 5, stride=3),
            *_convolution(embed_dim // 4, embed_dim // 2, 3, stride=2),
            # One more look at strokes and seams, where the map is neither large (and slow) nor coarse.
            *_convolution(embed_dim // 2, embed_dim // 2, 3, stride=1),
            *_convolution(embed_dim // 2, embed_dim, 3, stride=2),
        )
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, s, s) -> (b, n, d)."""
        return rearrange(self.layers(images), "b d h w -> b (h w) d")


def _convolution(width_in: int, width_out: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(width_out // 8, width_out), nn.GELU()]


# timm looks up a model's data config under this name.
default_cfgs = generate_default_cfgs({"sbir_mini": {
    "input_size": (3, 96, 96), "mean": (1.0, 1.0, 1.0), "std": (0.25, 0.25, 0.25), "num_classes": 0,
    "fixed_input_size": True, "first_conv": "patch_embed.layers.0", "classifier": "head",
}})  # fmt: skip


@register_model
def sbir_mini(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A ViT with a convolutional stem that learns from scratch on a CPU; 8 x 8 tokens at 96 px."""
    settings: dict[str, Any] = {
        "img_size": 96, "patch_size": 12, "embed_dim": 128, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0,
        "weight_init": "moco", "embed_layer": ConvStem,
    } | options  # fmt: skip
    model = build_model_with_cfg(VisionTransformer, "sbir_mini", pretrained, **settings)
    if not pretrained and model.pos_embed is not None:
        # As large as the stem's output: with timm's 0.02 the tokens would hardly know their places.
        nn.init.trunc_normal_(model.pos_embed, std=0.5)
    return model

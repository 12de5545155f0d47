"""The names of `sbirlib.layers`: what type checkers see, and what is loaded when first asked for."""

from .backbone import Backbone, Tokens, block_means
from .chance import drawing
from .losses import alike_loss, euclidean_triplet, info_nce, other_photos
from .mstr import MSTR, MSTRError, contrast_map, pool
from .own_models import ConvStem, SketchANet
from .released import ReleasedMSTR, slipped_contrast_map
from .weights import BackboneError, pretrained_config

__all__ = [
    "MSTR", "Backbone", "BackboneError", "ConvStem", "MSTRError", "ReleasedMSTR", "SketchANet", "Tokens",
    "alike_loss", "block_means", "contrast_map", "drawing", "euclidean_triplet", "info_nce", "other_photos",
    "pool", "pretrained_config", "slipped_contrast_map",
]  # fmt: skip

"""The parts that methods are built from."""

from sbirlib.layers.backbone import Backbone, Tokens, block_means
from sbirlib.layers.chance import drawing
from sbirlib.layers.losses import euclidean_triplet, info_nce, other_photos
from sbirlib.layers.mini_vit import ConvStem
from sbirlib.layers.mstr import MSTR, MSTRError, contrast_map, pool
from sbirlib.layers.released import ReleasedMSTR, slipped_contrast_map
from sbirlib.layers.sketch_a_net import SketchANet
from sbirlib.layers.weights import BackboneError, pretrained_config

__all__ = [
    "MSTR", "Backbone", "BackboneError", "ConvStem", "MSTRError", "ReleasedMSTR", "SketchANet", "Tokens",
    "block_means", "contrast_map", "drawing", "euclidean_triplet", "info_nce", "other_photos", "pool",
    "pretrained_config", "slipped_contrast_map",
]  # fmt: skip

"""The parts that methods are built from."""

from sbirlib.layers.backbone import Backbone, Tokens
from sbirlib.layers.losses import info_nce
from sbirlib.layers.mini_vit import ConvStem
from sbirlib.layers.mstr import MSTR, MSTRError, contrast_map, pool
from sbirlib.layers.released import ReleasedMSTR, slipped_contrast_map
from sbirlib.layers.sketch_a_net import SketchANet
from sbirlib.layers.weights import BackboneError

__all__ = [
    "MSTR", "Backbone", "BackboneError", "ConvStem", "MSTRError", "ReleasedMSTR", "SketchANet", "Tokens",
    "contrast_map", "info_nce", "pool", "slipped_contrast_map",
]  # fmt: skip

"""The names of `sbirlib.miniclothes`: what type checkers see, and what is loaded when first asked for."""

from .dataset import MANIFEST, draw_miniclothes, near_twins, sketch_recorders
from .garments import Garment, Wardrobe, wardrobe
from .photo import render_photo
from .sketch import DESIGNERS, Designer, record_sketch, render_sketch

__all__ = [
    "DESIGNERS", "MANIFEST", "Designer", "Garment", "Wardrobe", "draw_miniclothes", "near_twins",
    "record_sketch", "render_photo", "render_sketch", "sketch_recorders", "wardrobe",
]  # fmt: skip

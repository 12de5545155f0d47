"""MiniClothes, the embedded data set, drawn entirely by code."""

from sbirlib.miniclothes.dataset import draw_miniclothes, near_twins, sketch_recorders
from sbirlib.miniclothes.garments import Garment, Wardrobe, wardrobe
from sbirlib.miniclothes.photo import render_photo
from sbirlib.miniclothes.sketch import DESIGNERS, Designer, record_sketch, render_sketch

__all__ = [
    "DESIGNERS", "Designer", "Garment", "Wardrobe", "draw_miniclothes", "near_twins", "record_sketch",
    "render_photo", "render_sketch", "sketch_recorders", "wardrobe",
]  # fmt: skip

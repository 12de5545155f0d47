"""MiniClothes, the embedded data set, drawn entirely by code."""

from sbirlib.miniclothes.dataset import draw_miniclothes, near_twins
from sbirlib.miniclothes.garments import Garment, Wardrobe, wardrobe
from sbirlib.miniclothes.photo import render_photo
from sbirlib.miniclothes.sketch import DESIGNERS, Designer, render_sketch, trace_garment

__all__ = [
    "DESIGNERS", "Designer", "Garment", "Wardrobe", "draw_miniclothes", "near_twins", "render_photo",
    "render_sketch", "trace_garment", "wardrobe",
]  # fmt: skip

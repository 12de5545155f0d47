"""Pairs on disk, pictures in memory, and the views of a batch."""

from sbirlib.data.batches import Batch, Epoch, epoch_order
from sbirlib.data.drawings import pseudo_sketches, redraw, training_folder
from sbirlib.data.images import EXTENSIONS, Fault, as_picture, as_pixels, read_image, read_pixels
from sbirlib.data.loading import LoadedSplit, load_data, load_images, load_split
from sbirlib.data.pairs import PairFolder
from sbirlib.data.recordings import Recording, read_recording
from sbirlib.data.splits import PairError, Photo, Sketch, Split
from sbirlib.data.strokes import Stroke, frame_picture, frame_strokes, render_strokes
from sbirlib.data.transforms import edge_map, fit_square, make_view, to_float
from sbirlib.errors import ImageError

__all__ = [
    "EXTENSIONS", "Batch", "Epoch", "Fault", "ImageError", "LoadedSplit", "PairError", "PairFolder",
    "Photo", "Recording", "Sketch", "Split", "Stroke", "as_picture", "as_pixels", "edge_map", 
    "epoch_order", "fit_square", "frame_picture", "frame_strokes", "load_data", "load_images", "load_split",
    "make_view", "pseudo_sketches", "read_image", "read_pixels", "read_recording", "redraw", "render_strokes",
    "to_float", "training_folder",
]  # fmt: skip

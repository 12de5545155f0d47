"""The names of `sbirlib.data`: what type checkers see, and what is loaded when first asked for."""

from .batches import Batch, Epoch, epoch_order
from .drawings import pseudo_sketches, redraw, training_folder
from .folders import RECORD, filling, record_of
from .images import EXTENSIONS, Fault, read_image
from .loading import LoadedSplit, load_data, load_images, load_split
from .pairs import EDGE_MAPS, SPLITS, PairFolder
from .recordings import RECORDINGS, Recording, read_recording
from .splits import PairError, Photo, Sketch, Split
from .strokes import Sheet, Stroke, frame_picture, frame_strokes, render_strokes
from .transforms import Fit, as_pixels, edge_map, fit_square, make_view, read_pixels, to_float

__all__ = [
    "EDGE_MAPS", "EXTENSIONS", "RECORD", "RECORDINGS", "SPLITS", "Batch", "Epoch", "Fault", "Fit",
    "LoadedSplit", "PairError", "PairFolder", "Photo", "Recording", "Sheet", "Sketch", "Split", "Stroke",
    "as_pixels", "edge_map", "epoch_order", "filling", "fit_square", "frame_picture", "frame_strokes",
    "load_data", "load_images", "load_split", "make_view", "pseudo_sketches", "read_image", "read_pixels",
    "read_recording", "record_of", "redraw", "render_strokes", "to_float", "training_folder",
]  # fmt: skip

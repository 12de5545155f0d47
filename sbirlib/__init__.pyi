"""The names of `sbirlib`: what type checkers see, and what is loaded when it is first asked for."""

from .analysis import (
    attention_distance,
    attention_maps,
    discard_curve,
    embed_kept,
    global_attention,
    kept_places,
    patch_attention,
    recycled_tokens,
    recycling_shares,
    recycling_variance,
    rollout,
    token_scores,
    token_similarity,
)
from .config import Config
from .data import (
    Epoch,
    PairFolder,
    Sheet,
    edge_map,
    fit_square,
    load_split,
    make_view,
    pseudo_sketches,
    read_image,
    redraw,
)
from .experiments import ablate, compare, grid, published, read_rows, summary
from .figures import image_grid, interval_plot, token_overlay, training_curves
from .layers import MSTR, ReleasedMSTR, info_nce
from .methods import METHODS, ARNet, disturbed, recording
from .miniclothes import DESIGNERS, draw_miniclothes, near_twins, render_photo, render_sketch, wardrobe
from .panels import (
    Dials,
    DrawPanel,
    RetrievalBrowser,
    TrainPanel,
    demo_config,
    demo_pairs,
    fast,
    load_or_train,
    search_picture,
)
from .retrieval import Gallery, accuracy_of, embed_split, evaluate, paired_bootstrap, score
from .runs import load_run
from .training import train

__all__ = [
    "DESIGNERS", "METHODS", "MSTR", "ARNet", "Config", "Dials", "DrawPanel", "Epoch", "Gallery",
    "PairFolder", "ReleasedMSTR", "RetrievalBrowser", "Sheet", "TrainPanel", "ablate", "accuracy_of",
    "attention_distance", "attention_maps", "compare", "demo_config", "demo_pairs", "discard_curve",
    "disturbed", "draw_miniclothes", "edge_map", "embed_kept", "embed_split", "evaluate", "fast",
    "fit_square", "global_attention", "grid", "image_grid", "info_nce", "interval_plot", "kept_places",
    "load_or_train", "load_run", "load_split", "make_view", "near_twins", "paired_bootstrap",
    "patch_attention", "pseudo_sketches", "published", "read_image", "read_rows", "recording",
    "recycled_tokens", "recycling_shares", "recycling_variance", "redraw", "render_photo",
    "render_sketch", "rollout", "score", "search_picture", "summary", "token_overlay", "token_scores",
    "token_similarity", "train", "training_curves", "wardrobe",
]  # fmt: skip

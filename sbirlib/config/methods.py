"""The hyper-parameters of each method, and the shared settings that change with the method."""

from typing import Literal, get_args

from pydantic import PositiveInt

from sbirlib.config.fields import group, knob

MethodName = Literal[
    "arnet", "b_siamese", "triplet_sn", "dssa", "sketch_aa", "part_sbir", "eups", "on_the_fly", "cmhm",
    "nt_sbir", "style_me_up", "adpt_sbir", "semi_sup",
]  # fmt: skip
# The groups of settings that belong to one method: one of its own name, but for ARNet.
GROUPS: dict[MethodName, tuple[str, ...]] = {
    name: ("mstr", "loss") if name == "arnet" else (name,) for name in get_args(MethodName)
}


@group
class MSTRConfig:
    """Multi-scale token recycling, and the released code's departures from the paper."""

    enabled: bool = knob(False)
    """Recycle the patch tokens; without, the global token alone makes the embedding."""
    scales: tuple[PositiveInt, ...] = knob((1, 2, 7), unit="tokens")
    """Sides of the windows that patch tokens are averaged over; each must divide the grid."""
    depth: int = knob(2, ge=1, le=24, unit="layers")
    """Layers of each scale's transformer."""
    heads: int = knob(8, ge=1, le=128)
    """Attention heads of each scale's transformer."""
    feedforward: int = knob(2048, ge=1, le=65536)
    """Width of the feed-forward layers of each scale's transformer."""
    dropout: float = knob(0.1, ge=0, lt=1, unit="probability")
    """Dropout inside the transformers."""
    weight: float = knob(0.1, ge=0, le=1)
    """Share w of the recycled feature in (1 - w) * global token + w * recycled."""
    channels: int = knob(16, ge=1, le=4096)
    """Averaged channels by which the recycling loss compares cells."""
    similarity: Literal["cosine", "dot"] = knob("cosine")
    """How the recycling loss compares cells; released: dot."""
    attention: Literal["tokens", "batch"] = knob("tokens")
    """What attention runs over: the cells of one image; released: the images of the batch."""
    pooling: Literal["windows", "strips"] = knob("windows")
    """Cells: square windows of the grid; released: strips of as many tokens in raster order."""
    contrast: Literal["overlap", "slipped"] = knob("overlap")
    """Contrast map from the overlap of cells; released: with index slips, asymmetric."""
    registered: bool = knob(True)
    """Train and save the transformers; released: not, and dropout stays on at test time."""


@group
class LossConfig:
    """InfoNCE within and across the two domains, and the recycling loss."""

    temperature: float = knob(0.07, gt=0, le=10)
    """Temperature tau of every InfoNCE term."""
    multi: float = knob(1.0, ge=0, le=100)
    """Weight of L_multi: embeddings of sketch and photo."""
    inter: float = knob(1.0, ge=0, le=100)
    """Weight of L_inter: global tokens of sketch and photo."""
    intra_sketch: float = knob(1.0, ge=0, le=100)
    """Weight of L_intra(sketch): global tokens of a sketch's two views."""
    intra_photo: float = knob(1.0, ge=0, le=100)
    """Weight of L_intra(photo): global tokens of a photo's two views."""
    intra_every: int = knob(1, ge=1, le=1000, unit="steps")
    """L_intra in every so many steps, and so many times as strong; only these steps need second views."""
    recyc_sketch: float = knob(1.0, ge=0, le=100)
    """Weight of L_recyc(sketch): similarities of recycled tokens against the contrast map."""
    recyc_photo: float = knob(1.0, ge=0, le=100)
    """Weight of L_recyc(photo): likewise for photos."""
    attributes: float = knob(0.0, ge=0, le=100)
    """Weight of L_attributes: photos of which attributes.csv, beside trainB, says the same lie together."""
    mask_duplicates: bool = knob(True)
    """Leave rows of the same photo out of the negatives; the released code does not."""


@group
class BSiameseConfig:
    """B-Siamese: one encoder and a triplet loss."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of the triplet loss, between Euclidean distances of unit vectors (0 to 2)."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together."""


@group
class TripletSNConfig:
    """Triplet-SN: photos as edge maps, one encoder, a triplet loss on squared distances."""

    margin: float = knob(0.3, ge=0, le=4)
    """Margin of the triplet loss, between squared Euclidean distances of unit vectors (0 to 4)."""
    hidden: int = knob(512, ge=1, le=65536)
    """Width of the layer before the embedding."""
    dropout: float = knob(0.0, ge=0, lt=1, unit="probability")
    """Dropout after that layer; none in the authors' code, and from scratch 0.5 keeps it from learning."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together."""
    ten_crops: bool = knob(False)
    """Search with ten views of every picture: corners, centre, and these mirrored."""


@group
class DSSAConfig:
    """DSSA (Triplet-Att-SN): attention with a shortcut, coarse and fine features, a learned distance."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of the triplet loss, between learned second-order distances."""
    hidden: int = knob(512, ge=1, le=65536)
    """Width of the layer before the coarse feature."""
    dropout: float = knob(0.0, ge=0, lt=1, unit="probability")
    """Dropout after that layer; none in the authors' code, and from scratch 0.5 keeps it from learning."""
    regularise: float = knob(5e-4, ge=0, le=10)
    """Weight lambda of what keeps the learned distance near Euclid's."""
    noise: float = knob(0.0, ge=0, le=1)
    """How far from Euclid's it begins, in each element of W; our own default, TCNet's code has 0.05."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together."""
    ten_crops: bool = knob(False)
    """Search with ten views of every picture: corners, centre, and these mirrored."""


@group
class SketchAAConfig:
    """SketchAA: means over coarser and finer blocks, from coarse to fine."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of the triplet loss, between Euclidean distances of unit vectors; our own default."""
    levels: tuple[PositiveInt, ...] = knob((1, 2, 4), unit="blocks", min_length=1)
    """Blocks on a side at each level, from coarse to fine; our own default."""
    flip: float = knob(0.0, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together; our own default."""


@group
class PartSBIRConfig:
    """Part-SBIR: two sets of regions, compared by optimal transport."""

    margin: float = knob(0.2, ge=0, le=2)
    """Margin of both triplet losses, between transport distances (0 to 2)."""
    regions: int = knob(3, ge=1, le=16)
    """Regions on a side: the feature map is averaged to 3 x 3."""
    epsilon: float = knob(0.05, gt=0, le=10)
    """Entropy of the transport plan (Sinkhorn's); our own default."""
    iterations: int = knob(50, ge=1, le=10000)
    """Rounds of Sinkhorn's algorithm; our own default."""
    adjacency: float = knob(0.1, ge=0, le=100)
    """Weight of the triplet on adjacencies of regions; form and default are our own."""
    cost: Literal["distance", "published"] = knob("distance")
    """What the plan makes small: 1 - similarity; published: the similarity, as in the authors' code."""


@group
class EUPSConfig:
    """EUPS-SBIR: triplets within and across domains, and a teacher of photos; all defaults are our own."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of the three triplet losses, between Euclidean distances of unit vectors."""
    temperature: float = knob(0.1, gt=0, le=10)
    """Temperature tau of the distances to other photos that are distilled."""
    distil: float = knob(1.0, ge=0, le=100)
    """Weight of each of the three distillation terms."""
    teacher: float = knob(0.4, gt=0, lt=1, unit="share of epochs")
    """How long the teacher learns from photos before the student begins."""
    average: float = knob(0.99, ge=0, lt=1)
    """Share of the averaged weights that a step keeps; the average is what is searched with."""
    grow: int = knob(3, ge=1, le=31, unit="px")
    """Side of the square by which a photo's light or dark parts grow in its augmented view."""


@group
class OnTheFlyConfig:
    """OnTheFly: a triplet network, then a policy on top that is rewarded while a sketch is drawn."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of the triplet loss, between Euclidean distances of unit vectors; from memory, not verified."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together, as long as the encoders learn; our own default."""
    retrieval: float = knob(0.5, gt=0, lt=1, unit="share of epochs")
    """How long the encoders learn from complete sketches before the policy begins; our own default."""
    steps: int = knob(20, ge=1, le=1000)
    """Partial drawings T of each sketch, by equal shares of its strokes: 20 in the paper, 17 in the code."""
    stable: float = knob(1e-4, ge=0, le=100)
    """Weight of the reward for lists of photos that settle, 1 / rank having 1; from memory, not verified."""
    clip: float = knob(0.2, gt=0, lt=1)
    """How far the ratio of the policy to the old one may pay off; from memory, not verified."""
    refresh: int = knob(5, ge=1, le=100000, unit="steps")
    """How often the old policy, which actions are drawn from, is brought up to date; our own default."""
    spread: float = knob(0.3, gt=0, le=100)
    """Standard deviation of actions at the start, in each dimension; our own default, authors' code: 1."""
    episodes: int = knob(4, ge=1, le=1000)
    """Episodes of each sketch in a step, by which its rewards are normalised; 1, which are not: the paper."""


@group
class CMHMConfig:
    """CMHM-SBIR: two sets of windows that look at each other and are merged, two at a time."""

    margin: float = knob(0.2, ge=0, le=10)
    """Margin of the triplet loss, between squared Euclidean distances of vectors of any length."""
    windows: Literal[1, 7, 14] = knob(7)
    """Windows of a picture: the whole; with halves and quarters; or with 2 x 2 and 3 x 3; our own default."""
    hidden: int = knob(128, ge=1, le=65536)
    """Width of what the rows are compared by for the co-attention."""


@group
class NTSBIRConfig:
    """NT-SBIR: a triplet network, then a selector of strokes, which learns from rewards."""

    margin: float = knob(0.2, ge=0, le=10)
    """Margin of the triplet loss, between Euclidean distances of unit vectors (0 to 2)."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together, as long as the encoders learn; our own default."""
    retrieval: float = knob(0.5, gt=0, lt=1, unit="share of epochs")
    """How long the encoders learn from complete sketches before the selector begins; our own default."""
    noise: int = knob(8, ge=0, le=1000)
    """Strokes of another sketch, at most, that are added while the selector learns; our own default."""
    rate: float = knob(3.0, gt=0, le=1000)
    """Learning rate of the selector, as a multiple of optim.lr; our own default."""
    steady: float = knob(0.1, ge=0, le=100)
    """Weight of what holds the selector near its beginning, 1 stroke of 10 being dropped; our own default."""


@group
class StyleMeUpConfig:
    """StyleMeUp: a shared part and a style of every sketch, split so that one step suits another hand."""

    margin: float = knob(0.2, ge=0, le=10)
    """Margin of both triplet losses, between Euclidean distances of unit vectors (0 to 2)."""
    rate: float = knob(0.005, ge=0, le=100)
    """Learning rate of the step that a task takes."""
    kl: float = knob(0.01, ge=0, le=100)
    """Weight of the styles' divergence from a normal; our own: with 1, as in the code, styles say nothing."""


@group
class AdptSBIRConfig:
    """Adpt-SBIR: a head that a few pairs by one designer adapt to that hand."""

    margin: float = knob(0.2, gt=0, lt=1)
    """Margin of the triplet losses, and where the learnt one of the step begins."""
    rate: float = knob(1.0, ge=0, le=1000)
    """Learning rate of the step that adapts; our own default."""
    domain: float = knob(0.1, ge=0, le=100)
    """Strength of the reversed gradient of what tells sketches from photos; our own default."""
    designer: float = knob(0.1, ge=0, le=100)
    """Weight of the triplet that draws sketches by one designer together; our own default."""


@group
class SemiSupConfig:
    """Semi-Sup: a generator that learns to draw, and pairs of photos with its drawings; all our own."""

    margin: float = knob(0.3, ge=0, le=10)
    """Margin of both triplet losses, between Euclidean distances of unit vectors (0 to 2)."""
    flip: float = knob(0.5, ge=0, le=1, unit="probability")
    """Sketch and photo are flipped left-right together."""
    supervised: float = knob(0.3, gt=0, lt=1, unit="share of epochs")
    """How long the encoders learn from pairs before the generator begins."""
    generator: float = knob(0.4, gt=0, lt=1, unit="share of epochs")
    """How long the generator learns to draw before all learn together."""
    points: int = knob(60, ge=2, le=200)
    """Points of a drawing at most."""
    hidden: int = knob(256, ge=1, le=4096)
    """Width of the decoder; authors' code: 512."""
    temperature: float = knob(0.5, gt=0, le=1)
    """Temperature of drawings, by which the likeliest points are preferred."""
    pseudo: float = knob(1.0, ge=0, le=100)
    """Weight of the triplet loss on photos without a sketch and their drawings."""
    distil: float = knob(1.0, ge=0, le=100)
    """Weight of the squared distances to the teacher's embeddings."""
    reward: float = knob(0.1, ge=0, le=100)
    """Weight of the generator's reward, the likelihood of strokes having 1."""

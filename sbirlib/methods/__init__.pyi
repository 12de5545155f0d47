"""The names of `sbirlib.methods`: what type checkers see, and what is loaded when first asked for."""

from .adpt_sbir import AdptSBIR
from .arnet import ARNet
from .b_siamese import BSiamese
from .base import Encoder, Method, Stage, fingerprint
from .cards import CARDS, Card, Needs, Paper
from .catalogue import METHODS, build
from .cmhm import CMHM
from .dssa import DSSA
from .eups import EUPS
from .nt_sbir import NTSBIR
from .on_the_fly import OnTheFly
from .part_sbir import PartSBIR
from .recordings import disturbed, recording
from .semi_sup import SemiSup
from .sketch_aa import SketchAA
from .style_me_up import StyleMeUp
from .triplet_sn import TripletSN

__all__ = [
    "CARDS", "CMHM", "DSSA", "EUPS", "METHODS", "NTSBIR", "ARNet", "AdptSBIR", "BSiamese", "Card", "Encoder",
    "Method", "Needs", "OnTheFly", "Paper", "PartSBIR", "SemiSup", "SketchAA", "Stage", "StyleMeUp",
    "TripletSN", "build", "disturbed", "fingerprint", "recording",
]  # fmt: skip

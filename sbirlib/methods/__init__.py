"""One file for each paper, and the interface that they have in common."""

from sbirlib.methods.adpt_sbir import AdptSBIR
from sbirlib.methods.arnet import ARNet
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Encoder, Method, Needs, Paper, Stage, fingerprint
from sbirlib.methods.catalogue import METHODS, build
from sbirlib.methods.cmhm import CMHM
from sbirlib.methods.dssa import DSSA
from sbirlib.methods.eups import EUPS
from sbirlib.methods.nt_sbir import NTSBIR
from sbirlib.methods.on_the_fly import OnTheFly
from sbirlib.methods.part_sbir import PartSBIR
from sbirlib.methods.recordings import disturbed, recording
from sbirlib.methods.semi_sup import SemiSup
from sbirlib.methods.sketch_aa import SketchAA
from sbirlib.methods.style_me_up import StyleMeUp
from sbirlib.methods.triplet_sn import TripletSN

__all__ = [
    "CMHM", "DSSA", "EUPS", "METHODS", "NTSBIR", "ARNet", "AdptSBIR", "BSiamese", "Encoder", "Method",
    "Needs", "OnTheFly", "Paper", "PartSBIR", "SemiSup", "SketchAA", "Stage", "StyleMeUp", "TripletSN",
    "build", "disturbed", "fingerprint", "recording",
]  # fmt: skip

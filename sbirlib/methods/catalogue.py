"""Every method by name, and the model that a configuration describes."""

from sbirlib.config.config import Config
from sbirlib.methods.adpt_sbir import AdptSBIR
from sbirlib.methods.arnet import ARNet
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Method
from sbirlib.methods.cmhm import CMHM
from sbirlib.methods.dssa import DSSA
from sbirlib.methods.eups import EUPS
from sbirlib.methods.nt_sbir import NTSBIR
from sbirlib.methods.on_the_fly import OnTheFly
from sbirlib.methods.part_sbir import PartSBIR
from sbirlib.methods.semi_sup import SemiSup
from sbirlib.methods.sketch_aa import SketchAA
from sbirlib.methods.style_me_up import StyleMeUp
from sbirlib.methods.triplet_sn import TripletSN

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (
        ARNet, BSiamese, TripletSN, DSSA, SketchAA, PartSBIR, EUPS, OnTheFly, CMHM, NTSBIR, StyleMeUp,
        AdptSBIR, SemiSup,
    )
}  # fmt: skip


def build(config: Config, *, fetch: bool = True) -> Method:
    """The untrained model of `config.method`, as `config` describes it.

    Without `fetch` its backbone is from scratch: for weights to come, when those of old may be out of reach.
    """
    if not fetch:
        config = config.updated({"model.pretrained": False, "model.weights": ""})
    return METHODS[config.method].from_config(config)

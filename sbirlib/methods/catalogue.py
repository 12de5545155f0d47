"""Every method by name, and the model that a configuration describes."""

from sbirlib import methods
from sbirlib.config.config import Config
from sbirlib.methods.base import Method

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (
        methods.ARNet, methods.BSiamese, methods.TripletSN, methods.DSSA, methods.SketchAA, methods.PartSBIR,
        methods.EUPS, methods.OnTheFly, methods.CMHM, methods.NTSBIR, methods.StyleMeUp, methods.AdptSBIR,
        methods.SemiSup,
    )
}  # fmt: skip


def build(config: Config, *, fetch: bool = True) -> Method:
    """The untrained model of `config.method`, as `config` describes it.

    Without `fetch` its backbone is from scratch: for weights to come, when those of old may be out of reach.
    """
    if not fetch:
        config = config.updated({"model.pretrained": False, "model.weights": ""})
    return METHODS[config.method].from_config(config)

"""Ablations, grids of variants, and the published numbers to stand beside."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says: the names of grids need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

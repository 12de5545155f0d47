"""Pairs on disk, pictures in memory, and the views of a batch."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says: what is on disk needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

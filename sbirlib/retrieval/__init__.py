"""Embed photos once, search them with sketches, score the result, and say how sure it is."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says: intervals need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

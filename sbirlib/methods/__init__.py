"""One file for each paper, and the interface that they have in common."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says: a list of them needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The parts that methods are built from."""

import lazy_loader

from sbirlib.layers import own_models  # noqa: F401  # which tells timm of them

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

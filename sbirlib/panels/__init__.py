"""Panels of controls for the notebooks, and the data and model that these share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

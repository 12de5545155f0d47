"""Run folders: models, checkpoints, history, provenance and report."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says: a report needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

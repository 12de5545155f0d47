"""What a trained model looks at, and which tokens it can do without."""

import lazy_loader

# Names are loaded when first asked for, from where `__init__.pyi` says.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

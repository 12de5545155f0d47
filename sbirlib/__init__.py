"""Fine-grained sketch-based image retrieval with ARNet: what notebooks and scripts begin with."""

import os

import lazy_loader

# Threads that wait for one another must sleep, not spin: on a laptop whose cores something else also
# uses, spinning makes training several times slower. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Names, here and in most rooms, are loaded when first asked for, from where `__init__.pyi` says: torch takes
# seconds to import, and what is on disk, a list of methods, a report or the names of grids needs none.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

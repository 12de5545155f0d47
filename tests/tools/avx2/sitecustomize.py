"""Holds torch to AVX2, as an old laptop has it: `PYTHONPATH=tests/tools/avx2 python -m sbirlib ...`.

Python imports a module of this name when it starts. Where torch does not report bf16, the kit trains in fp32.
"""

import importlib.abc
import importlib.util
import os
import sys

os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


class Finder(importlib.abc.MetaPathFinder):
    """Finds `torch.cpu`, and leaves it without features once it is imported."""

    def find_spec(self, name, path=None, target=None):
        """The module as it would have been found, but for its `get_capabilities`."""
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.get_capabilities = dict

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())

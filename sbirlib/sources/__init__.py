"""Public data sets, brought in from what people download."""

from sbirlib.sources.qmulv1 import Category, import_qmulv1

__all__ = ["Category", "import_qmulv1"]

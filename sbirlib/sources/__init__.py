"""Public data sets, brought in from what people download."""

from sbirlib.sources.importing import Category, ImportReport, Source, import_dataset, published
from sbirlib.sources.layouts import SourceError

__all__ = ["Category", "ImportReport", "Source", "SourceError", "import_dataset", "published"]

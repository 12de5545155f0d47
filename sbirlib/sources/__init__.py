"""Public data sets, brought in from what people download."""

from sbirlib.sources.archives import ArchiveError
from sbirlib.sources.importing import ImportReport, Source, import_dataset, published
from sbirlib.sources.layouts import SourceError

__all__ = ["ArchiveError", "ImportReport", "Source", "SourceError", "import_dataset", "published"]

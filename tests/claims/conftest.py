"""A folder as after `make demo`: MiniClothes in full, the shipped model, and where the notebooks lie."""

import pytest
from filelock import FileLock
from tools.pages import FOLDER

from sbirlib import draw_miniclothes


@pytest.fixture(scope="session")
def notebooks(tmp_path_factory, worker_id):
    """Where the notebooks lie, with all that they find beside them; drawn once for all processes."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "course"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            draw_miniclothes(root / "data" / "MiniClothes")
            (root / "data" / "models").symlink_to(FOLDER.parent / "data" / "models")
            (root / "notebooks").mkdir()
            (root / "notebooks" / "results").symlink_to(FOLDER / "results")
    return root / "notebooks"

"""The notebooks, how many figures each shows at least, and what a cell says of its figure."""

from pathlib import Path

from nbformat import NotebookNode

FOLDER = Path(__file__).parents[2] / "notebooks"
FIGURES = {
    "00_start": 2,
    "01_explore_data": 6,
    "02_train": 5,
    "03_evaluate": 8,
    "04_attention_and_tokens": 8,
    "05a_paper_and_code": 5,
    "05b_paper_and_scores": 4,
    "06_draw_and_search": 8,
    "07_real_drawings": 6,
    "08_methods_compared": 14,
}
NAMES = sorted(FIGURES)


def alt_text(cell: NotebookNode) -> str:
    """What a cell's figure shows, for those who cannot see it."""
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")

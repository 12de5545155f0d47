"""The model that comes with the clone finds what its own record says."""

import json

from tools.pages import FOLDER

from sbirlib import evaluate, load_run
from sbirlib.runs.folder import Run

SHIPPED = FOLDER.parent / "data" / "models" / "mini_full"
HITS = 2  # may be more or fewer on a processor that rounds differently


def test_its_score_is_within_two_hits_of_its_record(notebooks):
    record = json.loads((SHIPPED / "test.json").read_text())
    scores = evaluate(load_run(SHIPPED), notebooks.parent / "data" / "MiniClothes")
    assert (len(scores.ranks), scores.gallery) == (record["queries"], record["gallery"])
    for k in (1, 5, 10):
        assert abs(scores.accuracy[k].hits - record[f"hits@{k}"]) <= HITS


def test_its_page_tells_the_same_counts_and_where_it_came_from():
    page, record = (SHIPPED.parent / "README.md").read_text(), json.loads((SHIPPED / "test.json").read_text())
    for k in (1, 5, 10):
        assert f"Acc@{k} {record[f'acc@{k}']:.1f} % ({record[f'hits@{k}']}/{record['queries']}," in page
    assert f"{Run(SHIPPED).config().run.epochs} epochs" in page
    assert Run(SHIPPED).start()["code"] in page

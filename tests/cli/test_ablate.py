"""The published tables on the command line."""

from sbirlib.cli.app import main
from sbirlib.experiments.published import results


def words(line):
    return " ".join(line.split())


def test_published_prints_the_table_and_where_it_comes_from(capsys):
    assert main(["published", "ChairV2"]) == 0
    header, *rows, arnet, qmul, what, caution = capsys.readouterr().out.splitlines()
    assert header.split() == ["data", "set", "method", "venue", "Acc@1", "Acc@5", "Acc@10", "queries"]
    assert "ChairV2 ARNet+MSTR AAAI 2025 75.45 94.66 97.87 -" in map(words, rows)
    # What is not given is a dash.
    assert "ChairV2 SketchAA ICCV 2021 52.89 - 94.88 -" in map(words, rows)
    assert len(rows) == len(results("ChairV2"))
    assert len({len(line) for line in (header, *rows)}) == 1
    assert "arXiv 2406.11551" in arnet
    assert 'table 2 of "Photo Pre-Training, But for Sketch" (CVPR 2023)' in qmul
    assert "not edge maps" in what
    assert "other backbones and protocols" in caution


def test_published_prints_all_tables_unless_one_is_named(capsys):
    assert main(["published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(results()) + 5
    assert "ChairV1 people CVPR 2023 94.85 - - 97" in map(words, lines)
    assert {line.split()[0] for line in lines[1:-4]} == {row.dataset for row in results()}
    assert main(["published", "ShoeV3"]) == 2
    assert "nothing published about 'ShoeV3'; known: ChairV1, ChairV2, ClothesV1" in capsys.readouterr().err

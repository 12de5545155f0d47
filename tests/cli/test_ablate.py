"""The published tables on the command line."""

import pytest

from sbirlib.cli.app import main
from sbirlib.experiments.published import results


def test_published_prints_the_table_and_where_it_comes_from(capsys):
    assert main(["published", "ChairV2"]) == 0
    header, *rows, source, caution = capsys.readouterr().out.splitlines()
    assert header.split() == ["data", "set", "method", "venue", "Acc@1", "Acc@5", "Acc@10"]
    assert "ChairV2    ARNet+MSTR      AAAI 2025   75.45   94.66   97.87" in rows
    # What is not given is a dash, in its column.
    assert "ChairV2    SketchAA        ICCV 2021   52.89       -   94.88" in rows
    assert len(rows) == len(results("ChairV2"))
    assert {len(line) for line in (header, *rows)} == {60}
    assert "arXiv 2406.11551" in source
    assert "other backbones and protocols" in caution


def test_published_prints_all_tables_unless_one_is_named(capsys):
    assert main(["published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(results()) + 3
    assert {line.split()[0] for line in lines[1:-2]} == {row.dataset for row in results()}
    with pytest.raises(SystemExit):
        main(["published", "ShoeV3"])
    assert "ClothesV1" in capsys.readouterr().err

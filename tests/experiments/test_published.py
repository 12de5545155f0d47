"""The papers' numbers, as their repository gives them."""

import numpy as np
import pytest

from sbirlib.experiments.published import results, training_curve


def test_published_numbers():
    table = results("ChairV2").set_index("method")
    assert (table.acc1["ARNet+MSTR"], table.venue["ARNet+MSTR"]) == (75.45, "AAAI 2025")
    assert np.isnan(table.acc1["Adpt-SBIR"])
    curve = training_curve("ChairV2")
    assert len(curve.epoch) == 500
    assert curve.test_acc1.max() == pytest.approx(75.445)
    assert curve.test_acc1[-50:].mean() == pytest.approx(70.3, abs=0.05)
    # Every value is a number of hits among 281.
    hits = curve.test_acc1 * 281 / 100
    np.testing.assert_allclose(hits, hits.round(), atol=0.01)


@pytest.mark.parametrize(
    ("dataset", "queries", "people", "best", "methods"),
    [("ShoeV1", 115, 66.09, 76.52, 7), ("ChairV1", 97, 94.85, 98.97, 7), ("HandbagV1", 168, 50.0, 72.02, 5)],
)
def test_qmul_v1_and_people(dataset, queries, people, best, methods):
    table = results(dataset).set_index("method")
    assert set(table.queries) == {queries}
    assert (table.acc1["people"], table.acc1["Photo Pre-Training"], len(table)) == (people, best, methods)
    # Every value is a number of hits among so many queries.
    hits = table.acc1 * queries / 100
    np.testing.assert_allclose(hits, hits.round(), atol=0.01)
    assert results("ChairV2").queries.isna().all()  # the ARNet paper prints none


def test_what_is_not_published_is_refused_with_what_is():
    with pytest.raises(ValueError, match=r"'ShoeV3'; known: ChairV1, ChairV2, .*, ShoeV1, ShoeV2"):
        results("ShoeV3")
    with pytest.raises(ValueError, match=r"known: .*ShoeV2 ARNet basic"):
        training_curve("ShoeV2", "ARNet")


def test_all_tables_are_those_of_each_data_set():
    whole = results()
    for name, rows in whole.groupby("dataset"):
        assert rows.reset_index(drop=True).equals(results(name))

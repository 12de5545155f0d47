"""The papers' numbers, as their repository gives them."""

import numpy as np
import pytest

from sbirlib.experiments.published import results, training_curve


def test_published_numbers():
    table = {row.method: row for row in results("ChairV2")}
    assert (table["ARNet+MSTR"].acc1, table["ARNet+MSTR"].venue) == (75.45, "AAAI 2025")
    assert np.isnan(table["Adpt-SBIR"].acc1)
    curve = training_curve("ChairV2")
    assert len(curve.epoch) == 500
    assert curve.test_acc1.max() == pytest.approx(75.445)
    assert curve.test_acc1[-50:].mean() == pytest.approx(70.3, abs=0.05)
    # Every value is a number of hits among 281.
    hits = curve.test_acc1 * 281 / 100
    np.testing.assert_allclose(hits, hits.round(), atol=0.01)


def test_what_is_not_published_is_refused_with_what_is():
    with pytest.raises(ValueError, match=r"'ShoeV3'; known: ChairV2, ClothesV1, ShoeV2"):
        results("ShoeV3")
    with pytest.raises(ValueError, match=r"known: .*ShoeV2 ARNet basic"):
        training_curve("ShoeV2", "ARNet")


def test_all_tables_are_those_of_each_data_set():
    each = [row for name in ("ClothesV1", "ChairV2", "ShoeV2") for row in results(name)]
    # As text, since NaN differs from itself.
    assert str(results()) == str(each)

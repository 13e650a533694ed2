"""Charts over iterations speak of the same users as reports do."""

import pytest

from influence_cli.store.iterations import IterationValues
from influence_cli.viewer.screens.charts import _gaps


@pytest.mark.parametrize(("first", "second"), [("gameable", "resilient"), ("weak", "normal"), ("vuln", "normal")])
def test_the_gap_is_between_those_who_can_be_gamed_and_those_who_cannot(first, second):
    values = IterationValues(
        iteration=0,
        scenarios=[f"s{n}" for n in range(6) for _ in range(2)],
        states=[f"p{n}" for n in range(6) for _ in range(2)],
        populations=[first, second] * 6,
        ratings=[8.0, 3.0] * 6,
        vetoes=[None, None] * 6,
    )
    (point,) = _gaps([values], "ratings")
    assert point.value == pytest.approx(5.0)
    assert _gaps([values], "vetoes") == ()

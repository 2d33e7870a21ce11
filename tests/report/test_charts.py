import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.report import charts

FINITE = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)


@given(FINITE, FINITE)
def test_ticks_span_the_range_in_equal_round_steps(a, b):
    low, high = min(a, b), max(a, b)
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= 9
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert found[0] <= low + slack and found[-1] >= high - slack
    assert found == sorted(found)


def test_ticks_of_known_ranges():
    assert charts.ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert charts.ticks(1.3, 8.9) == [0, 2, 4, 6, 8, 10]
    assert charts.ticks(5, 5)[0] < 5 < charts.ticks(5, 5)[-1]


@pytest.mark.parametrize(
    "value, text", [(0, "0"), (0.0005, "0.0005"), (12300, "12.3k"), (2.5e6, "2.5M"), (1e-5, "1e-05"), (1500, "1500")]
)
def test_numbers_are_short(value, text):
    assert charts.number(value) == text


def test_thin_keeps_the_mean_and_drops_what_is_not_finite():
    points = [(float(i), float(i % 2)) for i in range(2400)] + [(2400.0, math.nan)]
    kept = charts.thin(points)
    assert len(kept) == charts.MOST_POINTS and kept[-1][0] == 2399
    assert all(y == 0.5 for _, y in kept)
    assert charts.thin(points[:10]) == points[:10]


def test_lines_are_well_formed_and_inside_the_picture():
    svg = charts.lines("a <b>", [("x & y", "#123", [(1, 2.0), (5, -3.0), (9, 40.0)]), ("none", "#456", [(1, math.inf)])])
    figure = ET.fromstring(svg)
    assert figure.find("figcaption").text == "a <b>"
    (line,) = figure.iter("polyline")
    for pair in line.get("points").split():
        x, y = map(float, pair.split(","))
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT and charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM
    first, last = line.get("points").split()[0], line.get("points").split()[-1]
    assert float(first.split(",")[0]) == charts.LEFT and float(last.split(",")[0]) == charts.WIDTH - charts.RIGHT


def test_one_point_is_drawn_and_none_is_no_chart():
    assert "circle" in charts.lines("t", [("s", "#123", [(1, 2.0)])])
    assert charts.lines("t", [("s", "#123", [])]) == ""


def test_bar_is_proportional():
    bar = ET.fromstring(charts.bar({"value": 50.0, "low": 40.0, "high": 60.0}, [("random", "#888", 100.0)], width=210))
    (rect,), (mark,) = list(bar.iter("rect")), list(bar.iter("line"))
    assert float(rect.get("width")) == pytest.approx((float(mark.get("x1")) - 1) / 2, abs=0.1)
    assert mark.find("title").text == "random: 100"
    assert charts.bar({"value": None, "low": None, "high": None}, []) == ""
    ET.fromstring(charts.bar({"value": 0.0, "low": None, "high": None}, []))


def test_a_bar_may_have_a_scale_of_its_own():
    drawn = lambda value, **options: ET.fromstring(charts.bar({"value": value}, [("other", "#888", None)], **options))
    lengths = lambda *value, **options: float(drawn(*value, **options).find("rect").get("width"))
    assert lengths(0.1, most=1.0) == pytest.approx(lengths(1.0, most=1.0) / 10, abs=0.1)
    assert lengths(0.1) == lengths(1.0) == lengths(1.0, most=1.0)

"""profiling.roofline: its figures agree with the formula and each other, and the picture shows them where they belong."""

import json
import re
import xml.etree.ElementTree as ET

import launched
import pytest

from profiling import roofchart


def test_figures_of_a_small_model(dataset_folder, tmp_path):
    d, f, v, layers, rows, t = 32, 48, 600, 1, 4, 96
    shape = f"--layers={layers} --width={d} --heads=4 --mlp_width={f} --length={t} --target_length=32 --batch_size={rows} --attention=plain"
    done = launched.run("profiling.roofline", [*shape.split(), "--size=256", f"--dataset={dataset_folder}", f"--output={tmp_path}"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    found, tokens = told["modules"], rows * t
    assert found["feed-forward"]["matrix_flops"] == 3 * 2 * tokens * layers * 3 * d * f
    assert found["attention"]["matrix_flops"] == 3 * 2 * tokens * layers * (4 * d * d + 2 * t * d)
    chunks = found["head and loss"]["matrix_flops"] / (3 * 2 * rows * 32 * d * v)  # of 32 positions, of which the batch needs some
    assert chunks in (1, 2, 3)
    assert sum(r["seconds"] for r in found.values()) == pytest.approx(sorted(told["rounds"])[1])
    for r in found.values():
        assert r["least"] == pytest.approx(max(r["flops"] / told["peak_flops"], r["bytes"] / told["bandwidth"]))
    assert {"device", "versions"} <= set(told) and ET.parse(told["picture"]).getroot().tag.endswith("svg")


def test_a_point_on_the_roof_is_drawn_on_it():
    """Peak 1e12 and 1e11 bytes/s: at 1 FLOP/byte the roof is 1e11, a tenth of the peak; at 100 it is flat."""
    text = roofchart.svg("t", 1e12, 1e11, [("on the slope", 1.0, 1e11), ("on the flat", 100.0, 1e12), ("below", 1.0, 1e10), ("nothing", 0.0, 0.0)])
    (corners,) = re.findall(r'points="([^"]+)"', text)
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in corners.split())
    places = re.findall(r'<circle class="point" cx="([\d.]+)" cy="([\d.]+)"', text)
    flat, slope, below = ((float(x), float(y)) for x, y in places)  # the highest first
    assert y1 == y2 == pytest.approx(flat[1], abs=0.2) and x1 < flat[0] <= x2
    assert slope[1] == pytest.approx(y0 + (y1 - y0) * (slope[0] - x0) / (x1 - x0), abs=0.2)
    decade = y0 - y1 if x1 == x0 else (y0 - y1) / (x1 - x0) * (flat[0] - slope[0]) / 2  # the slope is one decade up a decade along
    assert below[0] == slope[0] and below[1] - slope[1] == pytest.approx(decade, abs=0.3)
    assert "nothing" not in text

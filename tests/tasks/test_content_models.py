"""Recommenders by content through the evaluation of a shop: cold items, weights, triples, tables of vectors, and what is refused."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ring

from rgjax.config import EvaluateConfig, RankingConfig, ShopConfig
from rgjax.errors import UserError
from rgjax.rank import two_tower
from rgjax.tasks import ranking, shop_report


@pytest.fixture
def source(tmp_path, monkeypatch) -> pathlib.Path:
    """The ring of items with their genres as triples too, beside a table of vectors by genre."""
    monkeypatch.setattr(two_tower, "LEAST_STEPS", 100)
    folder = ring.ml1m_folder(tmp_path / "shop", ring.following(150))
    (folder / "kg.txt").write_text("".join(f"{i} genre {1000 + i % 2}\n{i} decade {2000 + i // 6}\n" for i in range(ring.ITEMS)))
    (folder / "item_index2entity_id.txt").write_text("".join(f"{i + 101} {i}\n" for i in range(ring.ITEMS)))
    vectors = np.eye(2, dtype=np.float32)[np.arange(ring.ITEMS) % 2]
    pq.write_table(pa.table({"id": [str(i + 1) for i in range(ring.ITEMS)], "vector": list(vectors)}), tmp_path / "vectors.parquet")
    return folder


def _measured(source, shop=None, **how):
    config = EvaluateConfig(split="test", resamples=100, output=str(source / "out"))
    return ranking.evaluate(config, ShopConfig(layout="ml1m", source=str(source), **(shop or {})), RankingConfig(at="5", **how), lambda *_: None)[0]


def test_cold_items_are_scored_and_weights_told(source):
    how = dict(models="popularity,triples,transe,two_tower", hybrid=True, item_table=str(source.parent / "vectors.parquet"))
    found = _measured(source, {"cold_items": 0.25}, **how)
    assert {"weight_triples", "weight_transe", "weight_two_tower"} <= set(found["hybrid"])
    kinds = {name for name in found["two_tower"] if name.startswith("weight_")}
    assert {"weight_genre", "weight_vector", "weight_decade (triples)"} <= kinds
    assert found["two_tower"]["hr@5"] > found["popularity"]["hr@5"]
    assert found["popularity, cold items"]["hr@5"] == 0.0 < found["two_tower, cold items"]["hr@5"]
    assert json.loads((source / "out" / "evaluation.json").read_text())["two_tower"]["weight_genre"]["value"] == found["two_tower"]["weight_genre"]


def test_triples_are_measured(source):
    config = EvaluateConfig(output=str(source / "out"))
    found, _ = shop_report.report("triples", config, ShopConfig(layout="ml1m", source=str(source)))
    assert found["transe"]["triples"] > 0 and 0 < found["transe"]["mrr"] <= 1 and found["frequent"]["mrr"] > 0


def test_refusals(source):
    with pytest.raises(UserError, match="read by two_tower only"):
        _measured(source, models="popularity", item_table="x.parquet")
    (source / "kg.txt").unlink()
    with pytest.raises(UserError, match="--models=transe reads triples"):
        _measured(source, models="transe")

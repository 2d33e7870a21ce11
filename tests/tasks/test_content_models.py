"""Recommenders by content through the evaluation of a shop: cold items, weights, triples, tables of vectors, and what is refused."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ring

from rgjax.config import EvaluateConfig, RankingConfig, ShopConfig
from rgjax.data import holdout, shop_folder
from rgjax.errors import UserError
from rgjax.metrics import catalogue, exposure
from rgjax.metrics.recommender_definitions import DEFINITIONS, form
from rgjax.rank import demand_model, two_tower
from rgjax.tasks.shop import ranking, shop_report


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


def test_what_is_reported_is_defined_and_what_is_defined_is_reported(source):
    users = range(150)
    (source / "sas_to_original_users.txt").write_text("".join(f"{u + 1} {u + 1}\n" for u in users))
    (source / "users.dat").write_text("".join(f"{u + 1}::{'MF'[u % 2]}::25::1::0\n" for u in users), "latin-1")
    found = _measured(source, models="popularity,two_tower", hybrid=True, sampled=10)
    reported = {name for model, values in found.items() if model != "about" for name in values}
    told = json.loads((source / "out" / "evaluation.json").read_text())["about"]["definitions"]
    assert set(told) == reported and "by gender" in told["ndcg@5_gap_gender"]
    of_evidence = {name for name in DEFINITIONS if name.startswith(("comprehensiveness", "sufficiency"))}  # which need a trained run
    assert {form(name)[0] for name in reported} == set(DEFINITIONS) - of_evidence


def test_what_lists_do_to_the_catalogue_is_told_of_its_tail(source):
    """Lists of what is popular: by a loop over ranks, from the same folder."""
    found = _measured(source, models="popularity")["popularity"]
    data = holdout.split(shop_folder.open_any("", "ml1m", str(source)).interactions.named(), ShopConfig())
    counts, held = data.train.counts, data.test.items
    shown, lists, histories = np.zeros(len(counts)), [], []
    for user in np.flatnonzero(held >= 0):
        had = data.test.seen.history(user)
        order = [i for i in np.argsort(-counts, kind="stable") if i not in had][:5]
        shown[order] += 1 / np.log2(2 + np.arange(len(order)))
        lists.append(counts[order].mean())
        histories.append(counts[had].mean())
    tail = np.argsort(counts, kind="stable")[: len(counts) // 10]  # all items have events
    others, due = np.setdiff1d(np.arange(len(counts)), tail), np.bincount(held[held >= 0], minlength=len(counts))
    ratio = shown[tail].mean() / shown[others].mean()
    assert found["exposure_ratio@5"] == pytest.approx(ratio) and found["popularity_lift@5"] == pytest.approx(np.mean(lists) / np.mean(histories) - 1)
    assert found["disparate_treatment@5"] == pytest.approx(ratio / (due[tail].mean() / due[others].mean()))


def test_triples_are_measured(source):
    config = EvaluateConfig(output=str(source / "out"))
    found, _ = shop_report.report("triples", config, ShopConfig(layout="ml1m", source=str(source)))
    assert found["transe"]["triples"] > 0 and 0 < found["transe"]["mrr"] <= 1 and found["frequent"]["mrr"] > 0


def _never(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_what_is_undefined_is_null_in_json(source, monkeypatch):
    for place, name in ((catalogue, "gini"), (catalogue, "entropy")):
        monkeypatch.setattr(place, name, lambda *_: float("nan"))
    monkeypatch.setattr(exposure, "group_gap", lambda *_: (float("nan"), {}))
    monkeypatch.setattr(demand_model, "evaluate", lambda _: {"weeks": 12, "wape": {"learned": {"rolling": float("nan"), "ahead": 0.5}}})
    found = _measured(source, models="popularity")
    kept = json.loads((source / "out" / "evaluation.json").read_text(), parse_constant=_never)
    gaps = [name for name in kept["popularity"] if "_gap_" in name]
    for name in ("gini@5", "entropy@5", *gaps):
        assert kept["popularity"][name] == {"value": None} and found["popularity"][name] is None
    config = EvaluateConfig(output=str(source / "demand"))
    found, text = shop_report.report("demand", config, ShopConfig(layout="ml1m", source=str(source)))
    kept = json.loads((source / "demand" / "evaluation.json").read_text(), parse_constant=_never)
    assert kept == found and found["wape"]["learned"] == {"rolling": None, "ahead": 0.5} and "rolling -  ahead 0.5000" in text


def test_refusals(source):
    with pytest.raises(UserError, match="read by two_tower only"):
        _measured(source, models="popularity", item_table="x.parquet")
    (source / "kg.txt").unlink()
    with pytest.raises(UserError, match="--models=transe reads triples"):
        _measured(source, models="transe")

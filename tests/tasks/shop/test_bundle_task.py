"""The task of bundles through its launchers: trained, continued, measured, offered; and what it refuses."""

import dataclasses
import json
import re

import bundle_shop
import launched
import numpy as np
import pytest

from rgjax import report
from rgjax.config import DecodeConfig, EvaluateConfig, OfferConfig, RankingConfig, RecommendConfig
from rgjax.data import bundles as bundles_lib
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError

SMALL = {
    "task": "bundle", "layout": "shop", "text_width": 16, "set_length": 4, "user_length": 6, "user_bundles": 2, "beside": 16, "batch_size": 16,
    "layers": 1, "width": 16, "heads": 2, "dropout": 0, "learning_rate": 0.01, "warmup_steps": 3, "schedule": "constant", "steps": 30,
    "eval_every": 15, "save_every": 15, "log_every": 1, "item_dropout": 0.5,
}  # fmt: skip


def _start(program, devices=1, **flags):
    return launched.run(f"launch.{program}", flags, devices)


def _run(program, devices=1, **flags):
    return launched.result(_start(program, devices, **flags))


def _refused(program, **flags):
    return launched.refused(_start(program, **flags))


def _losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return bundle_shop.folder(tmp_path_factory.mktemp("shops") / "grouped", *bundle_shop.grouped())


@pytest.fixture(scope="module")
def flags(source, compilation_cache):
    return SMALL | {"source": source, "compilation_cache": compilation_cache}


@pytest.fixture(scope="module")
def run(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "full"
    return folder, _run("train", **flags, workdir=folder)


def test_it_learns_the_rule_and_beats_popularity(run):
    folder, summary = run
    assert summary["finished"] and summary["best_val_ndcg@10"] > 0.3
    found = _run("evaluate", workdir=folder, split="test", hybrid="true", resamples=100)
    scores = {name: one["hr@10"] for name, one in found["completion"]["all"].items()}
    assert scores["bundle_model"] > 0.9 > 0.4 + scores["popularity"] and scores["hybrid"] > 0.9 and scores["bundle_model_user_unknown"] > 0.6
    assert found["completion"]["weights"]["bundle_model"] > 0 and found["intent"]["bundles"] == found["completion"]["cases"] > 8
    assert found["for_users"]["bundle_model"]["hr@20"] > 0.3 + found["for_users"]["popularity"]["hr@20"]
    kept = json.loads((folder / "evaluation.json").read_text())["completion"]["all"]["bundle_model"]["ndcg@10"]
    assert kept["low"] <= kept["value"] <= kept["high"] and kept["value"] == found["completion"]["all"]["bundle_model"]["ndcg@10"]
    report.write(folder)
    text = (folder / "report.html").read_text()
    heads = re.findall("<h3>(.*?)</h3>", text)
    assert heads[0] == "completion" and {"completion, all", "for_users", "intent, intents"} <= set(heads)
    for part, k in ((found["completion"]["all"], "10"), (found["for_users"], "20")):
        shown = f"{part['bundle_model'][f'hr@{k}']:.4f}", f"{part['bundle_model'][f'ndcg@{k}']:.4f}"
        assert re.search(rf"<td>bundle_model</td><td[^>]*>{shown[0]}</td><td[^>]*>{shown[1]}</td>", text)
    assert f">{found['intent']['intents']['nearest_bundle']['exact']:.4f}<" in text


def test_a_run_in_two_parts_is_the_run_in_one(run, flags, tmp_path):
    _run("train", **flags | {"steps": 15}, workdir=tmp_path / "w")
    parts = _run("train", workdir=tmp_path / "w", steps=30)  # the rest is the run's own
    whole = _losses(run[0])
    assert parts["best_val_ndcg@10"] == run[1]["best_val_ndcg@10"] and whole.keys() == set(range(1, 31))
    assert _losses(tmp_path / "w") == pytest.approx(whole, rel=1e-5)


def test_eight_devices_train_like_one(run, flags, tmp_path):
    """The items lie over fsdp and tensor, the sets over data and fsdp."""
    _run("train", 8, **flags | {"steps": 6, "mesh": "data:2,fsdp:2,tensor:2", "eval_every": 6}, workdir=tmp_path / "w")
    whole = _losses(run[0])
    assert _losses(tmp_path / "w") == pytest.approx({step: whole[step] for step in range(1, 7)}, rel=1e-4)


def _offered(folder, tmp_path, lines, offer=None, **how):
    """The offers of every line, made in this process."""
    from rgjax.tasks.shop import offers

    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {"workdir": str(folder), "input": str(tmp_path / "asked.jsonl"), "output": str(tmp_path / "out.jsonl")}
    config = RecommendConfig(**files | {"top": 3, "overwrite": True} | how)
    offers.recommend(config, OfferConfig(**offer or {}), (DecodeConfig(), set()), lambda *_: None)
    return [json.loads(line)["offers"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def _group(item):
    return int(item.removeprefix("i")) // bundle_shop.EACH


def test_bundles_are_completed_with_parts_and_evidence(run, tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"items": ["i0", "i3"]}\n{"items": ["i13"], "user": "u0", "intent": "for people of kind2"}\n')
    summary = _run("recommend", workdir=run[0], input=tmp_path / "asked.jsonl", output=tmp_path / "out.jsonl", top=3)
    assert summary["lines"] == 2 and summary["offers"] == 6 and summary["reasons_from"] == {"model": 0, "shop": 0, "template": 6}
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert [_group(one["item"]) for one in first["offers"]].count(0) >= 2 and [_group(one["item"]) for one in second["offers"]].count(2) >= 2
    for one in first["offers"]:
        assert one["score"] == pytest.approx(sum(one["parts"].values()), abs=1e-3) and {e["item"] for e in one["evidence"]} == {"i0", "i3"}
        assert one["title"] in one["reason"] and one["item"] not in ("i0", "i3")
    assert [one["score"] for one in first["offers"]] == sorted((one["score"] for one in first["offers"]), reverse=True)


def test_bundles_are_built_under_a_budget(run, tmp_path):
    limit = {"offer": "build", "size": 3, "budget": 9.0}
    lines = [{"items": ["i5"]}, {"intent": "for people of kind4"}, {"items": ["i5"], "intent": "for people of kind0"}]
    found = _offered(run[0], tmp_path, lines, limit)
    for offers in found:
        assert len(offers) == 3 and all(len({one["item"] for one in bundle["items"]}) == 3 for bundle in offers)
        assert all(bundle["price"] == sum(one["price"] for one in bundle["items"]) <= 9 for bundle in offers)
        chances = [bundle["log_probability"] for bundle in offers]
        assert chances == sorted(chances, reverse=True) and chances[0] < 0
    assert found[0][0]["items"][0]["item"] == "i5" and {_group(one["item"]) for one in found[0][0]["items"]} == {0}
    (tmp_path / "gone.txt").write_text("i0\n")
    assert all(one["item"] != "i0" for one in _offered(run[0], tmp_path, lines[:1], limit, unavailable=str(tmp_path / "gone.txt"))[0][0]["items"])


def test_bundles_are_chosen_for_a_user(run, tmp_path):
    data, bundles = bundle_shop.grouped()
    user = next(u for u in range(80) if (bundles.splits[[2 * u, 2 * u + 1]] == 0).all())
    offers = _offered(run[0], tmp_path, [{"user": f"u{user}"}], {"offer": "choose"}, top=5)[0]
    own, group = {f"b{2 * user}", f"b{2 * user + 1}"}, _group(data.items.ids[bundles.members(2 * user)[0]])
    assert not own & {one["bundle"] for one in offers} and [_group(one["items"][0]["item"]) for one in offers].count(group) >= 3
    assert offers[0]["reason_from"] == "shop" and offers[0]["reason"] == f"for people of kind{_group(offers[0]['items'][0]['item'])}"


def test_what_cannot_be_offered_is_named(run, tmp_path):
    lone = next(u for u in range(80) if (bundle_shop.grouped()[1].splits[[2 * u, 2 * u + 1]] > 0).all())
    cases = [
        ([{"user": "u0"}], {}, {}, "line 1 names no items"),
        ([{"items": ["i0"]}], {"offer": "choose"}, {}, "line 1 names no user"),
        ([{"user": "u0", "items": ["i0"]}], {"offer": "choose"}, {}, "--offer=choose goes by the user alone"),
        ([{"user": f"u{lone}"}], {"offer": "choose"}, {}, f"nothing is known of user 'u{lone}'"),
        ([{"intent": "zzz"}], {"offer": "build"}, {}, "line 1 names nothing that the shop's items are described by"),
        ([{"items": ["i0", "i1", "i2"]}], {"offer": "build"}, {}, "--size=3 leaves no room"),
        ([{"items": ["i0"]}], {"offer": "build", "size": 9}, {}, "--size=9 is more than the 5 items that the run's --set_length allows"),
        ([{"items": ["i5"]}], {"offer": "build", "budget": 7.0}, {}, "line 1: the cheapest bundle of 3 items costs 8.00"),
        ([{"items": ["i0"]}], {}, {"top": 48}, "--top=48 is more than the 47 items that may be offered"),
        ([{"items": ["i0"]}], {}, {"only": "colour=pink"}, "--only=colour=pink"),
        ([{"items": ["i0"]}], {}, {"overwrite": False, "output": str(run[0] / "config.json")}, "exists"),
    ]
    for lines, offer, how, said in cases:
        with pytest.raises(UserError) as error:
            _offered(run[0], tmp_path, lines, offer, **how)
        assert said in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_flags_that_mean_nothing_are_refused(run, flags, tmp_path):
    from rgjax.tasks.shop import bundle_report, offers

    folder, _ = run
    for name in ("models", "explain", "sampled", "at", "outputs", "limit", "method", "weights", "earlier"):
        with pytest.raises(UserError, match=f"--{name} means nothing"):
            bundle_report.check_flags({"workdir", "split", "hybrid", name})
    bundle_report.check_flags({"workdir", "dataset", "split", "checkpoint", "resamples", "output", "hybrid"})
    for name, offer in (("evidence", "build"), ("strangers", "complete"), ("budget", "complete"), ("size", "choose"), ("repeat", "choose")):
        with pytest.raises(UserError, match=f"--{name} means nothing to --offer={offer}"):
            offers.check_flags({"workdir", name}, offer)
    offers.check_flags({"offer", "size", "budget", "offer_beams", "repeat"}, "build")
    assert "--explain means nothing to a run of --task=bundle" in _refused("evaluate", workdir=folder, explain=3)
    with pytest.raises(UserError, match="--hybrid; use --split=test"):
        bundle_report.evaluate(EvaluateConfig(workdir=str(folder), split="val"), "", RankingConfig(hybrid=True))
    assert "--cold_items is for a model of behaviour" in _refused("train", **flags, workdir=tmp_path / "w", cold_items=0.1)
    assert not (tmp_path / "w").exists()


def test_shops_without_prices_users_or_intents_do_and_those_without_bundles_are_refused(tmp_path, compilation_cache):
    from rgjax.tasks.shop import bundle, bundle_report

    data, bundles = bundle_shop.grouped()
    bare = dataclasses.replace(data, items=type(data.items)(data.items.ids, data.items.titles, [{}] * len(data.items)))
    alone = bundles_lib.Bundles(bundles.ids, bundles.items, [""] * len(bundles))
    flags = SMALL | {"compilation_cache": compilation_cache, "steps": 2, "eval_every": 2, "save_every": 2}
    source = bundle_shop.folder(tmp_path / "bare", bare, alone)
    _run("train", **flags, source=source, workdir=tmp_path / "w")
    found, _ = bundle_report.evaluate(EvaluateConfig(workdir=str(tmp_path / "w"), split="test", resamples=100), "", RankingConfig())
    assert found["for_users"] == {"users": 0} and found["intent"] == {"bundles": 0, "intents": {}} and found["completion"]["cases"] > 8
    assert _offered(tmp_path / "w", tmp_path, [{"items": ["i0"]}], {"offer": "build", "size": 2})[0][0]["price"] is None
    with pytest.raises(UserError, match="needs prices and the shop has none"):
        _offered(tmp_path / "w", tmp_path, [{"items": ["i0"]}], {"offer": "build", "budget": 5.0})
    assert np.isfinite(list(_losses(tmp_path / "w").values())).all()
    for missing in (None, bundles_lib.Bundles([], bundles.items[:0], [])):
        with pytest.raises(UserError, match="The shop 'small' has no bundles to train on"):
            bundle.with_bundles(Shop(data, "", {"name": "small"}, missing))

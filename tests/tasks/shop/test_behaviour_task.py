"""The task of behaviour through its launchers: trained, continued, measured, used; and what it refuses."""

import json
import shutil

import launched
import pytest
import ring

SMALL = {
    "task": "behaviour", "layout": "ml1m", "window": 16, "batch_size": 8, "layers": 1, "width": 32, "heads": 2, "dropout": 0, "learning_rate": 0.01,
    "warmup_steps": 5, "eval_every": 40, "save_every": 40, "log_every": 20, "weight_decay": 0.0,
}  # fmt: skip


def _start(program, devices=1, folder="launch", **flags):
    return launched.run(f"{folder}.{program}", flags, devices)


def _run(program, devices=1, **flags):
    return launched.result(_start(program, devices, **flags))


def _refused(program, **flags):
    return launched.refused(_start(program, **flags))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return ring.ml1m_folder(tmp_path_factory.mktemp("ml"), ring.following(200))


@pytest.fixture(scope="module")
def run(source, tmp_path_factory, compilation_cache):
    folder = tmp_path_factory.mktemp("runs") / "full"
    return folder, _run("train", **SMALL, source=source, workdir=folder, steps=80, compilation_cache=compilation_cache)


def test_it_learns_the_rule_and_beats_popularity(run, source):
    folder, summary = run
    assert summary["finished"] and summary["best_val_ndcg@10"] > 0.6
    done = _start("evaluate", workdir=folder, split="test", models="popularity,markov", at="1,10", hybrid="true", explain=3, resamples=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["behaviour"]["hr@1"] > 0.5 > 2 * found["popularity"]["hr@1"]
    assert found["hybrid"]["ndcg@10"] > found["popularity"]["ndcg@10"] and "weight_markov" in found["hybrid"]
    assert set(found["about"]["evidence"]) == {"attention", "gradient", "leave_one_out"}
    written = json.loads((folder / "evaluation.json").read_text())
    evidence = {"comprehensiveness", "comprehensiveness_random", "sufficiency", "sufficiency_random"}
    assert evidence | {"users"} == set(found["about"]["evidence"]["gradient"])
    assert evidence | set(found["behaviour"]) <= set(written["about"]["definitions"])
    kept = written["behaviour"]["hr@1"]
    assert kept["low"] <= kept["value"] <= kept["high"] and kept["value"] == found["behaviour"]["hr@1"]


def test_cold_users_and_items_are_measured_apart(source, tmp_path, compilation_cache):
    flags = SMALL | {"source": source, "workdir": tmp_path / "w", "compilation_cache": compilation_cache, "cold_users": 0.1, "cold_items": 0.25}
    _run("train", **flags, steps=40)
    found = _run("evaluate", workdir=tmp_path / "w", split="test", models="popularity,markov", at=5, resamples=100)
    users = {name: values["users"] for name, values in found.items() if name != "about"}
    assert users["behaviour"] > 2 * users["behaviour, cold users"] > 0 and users["behaviour, cold items"] > 0
    assert sum(users[f"behaviour{kind}"] for kind in ("", ", cold users", ", cold items")) <= found["about"]["asked"] <= 200
    assert found["behaviour, cold users"]["hr@5"] > 0.2 + found["popularity, cold users"]["hr@5"]
    assert found["about"]["cold_items"] > 0 and found["popularity, cold items"]["hr@5"] == 0.0


def test_a_run_in_two_parts_is_the_run_in_one(run, source, tmp_path, compilation_cache):
    flags = SMALL | {"source": source, "workdir": tmp_path / "parts", "compilation_cache": compilation_cache, "schedule": "constant"}
    whole = _run("train", **flags | {"workdir": tmp_path / "whole"}, steps=60)
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["input"]["streams"] > 0  # kept, for any number of processes to go on with
    _run("train", **flags, steps=40)
    assert _run("train", **flags, steps=60)["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_eight_devices_train_like_one(run, source, tmp_path, compilation_cache):
    """The table of items lies over fsdp and tensor; sampled negatives are the same draws wherever they are scored."""
    flags = SMALL | {"source": source, "compilation_cache": compilation_cache, "steps": 6, "objective": "gbce", "negatives": 8}
    one = _run("train", **flags, workdir=tmp_path / "one")
    eight = _run("train", 8, **flags, workdir=tmp_path / "eight", mesh="data:2,fsdp:2,tensor:2")
    assert eight["loss"] == pytest.approx(one["loss"], rel=1e-4) and eight["best_val_ndcg@10"] == pytest.approx(one["best_val_ndcg@10"], abs=0.02)


def test_profiles_look_at_its_step_too(source, tmp_path):
    flags = {name: SMALL[name] for name in ("task", "layout", "window", "batch_size", "layers", "width", "heads")}
    done = _start("plan", folder="profiling", **flags, source=source, mesh="fsdp:8")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["best"] == "fsdp:8" and "all-gather" in done.stdout


def test_recommendations_come_with_evidence_and_a_reason(run, source, tmp_path):
    folder, _ = run
    users = tmp_path / "users.jsonl"
    lines = [{"user": "1"}, {"user": {"id": "1"}, "history": [{"item": "11"}]}, {"history": [{"item": "4"}, {"item": "5"}]}, {"user": "new"}]
    users.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = _run("recommend", workdir=folder, input=users, output=tmp_path / "out.jsonl", top=3, strangers="true", evidence="leave_one_out")
    assert summary["users"] == 4 and summary["recommendations"] == 12 and summary["strangers"] == 1
    first, later, history, stranger = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    known = {str(i + 1) for i in ring.following(200).history(0)}
    assert not known & {r["item"] for r in first["recommendations"]}
    assert history["recommendations"][0]["item"] == "6"  # the rule: one further
    assert "12" in [r["item"] for r in later["recommendations"]]  # the new event counts without training
    best = history["recommendations"][0]
    assert best["evidence"][0]["item"] == "5" and best["reason_from"] == "template" and best["evidence"][0]["title"] in best["reason"]
    assert best["reason_names"] and stranger["stranger"] and not stranger["recommendations"][0]["evidence"]
    assert "genre: War" in json.dumps(history) or "genre: Drama" in json.dumps(history)


def test_a_log_is_followed_and_a_mixture_says_its_parts(run, source, tmp_path):
    """Lines of a log give what lines with whole histories give; and the shop may have moved."""
    folder, _ = run
    moved = shutil.copytree(source, tmp_path / "moved")
    log = [{"user": "1"}, {"user": "a", "history": [{"item": "4"}]}, {"user": "1", "history": [{"item": "11"}]}, {"history": [{"item": "9"}]}]
    log += [{"user": "a", "history": [{"item": "5"}, {"item": "6"}]}, {"user": "1", "history": [{"item": "20"}]}, {"user": "a"}]
    whole = [*log[:4], {"user": "a", "history": [{"item": i} for i in "456"]}, {"user": "1", "history": [{"item": "11"}, {"item": "20"}]}]
    whole += [{"user": "a", "history": whole[4]["history"]}]
    flags = {"workdir": folder, "source": moved, "top": 3, "models": "markov,ease,knn,popularity"}
    found = {}
    for name, lines, follow in (("log", log, "true"), ("whole", whole, "false")):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = _run("recommend", **flags, input=tmp_path / name, output=tmp_path / f"{name}.out", follow=follow)
        found[name] = [json.loads(line)["recommendations"] for line in (tmp_path / f"{name}.out").read_text().splitlines()]
    weights = summary["weights"]
    assert set(weights) == {"behaviour", "markov", "ease", "knn", "popularity"}
    for one, other in zip(found["log"], found["whole"], strict=True):
        assert [r["item"] for r in one] == [r["item"] for r in other]
        for a, b in zip(one, other, strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=2e-3)
            assert a["score"] == pytest.approx(sum(weights[name] * value for name, value in a["parts"].items()), abs=2e-3)
            assert set(a["neighbours"]) == {"ease", "knn"}
    first = found["log"][4][0]  # of user a: 4, 5, 6
    assert first["item"] == "7" and {e["item"] for e in first["neighbours"]["knn"]["items"]} <= {"4", "5", "6"}
    assert sum(e["adds"] for e in first["neighbours"]["knn"]["items"]) == pytest.approx(first["neighbours"]["knn"]["score"], rel=1e-2)


@pytest.mark.parametrize(
    "line,said",
    [
        ({"user": "nobody"}, "knows no user 'nobody'"), ({"history": [{"item": "77"}]}, "no item '77'"), ({"history": []}, "history is empty"),
        ({"history": [{"item": "4", "time": 9e12}]}, "in the future"), ({"history": [{"item": "4", "time": 5}] * 2}, "given twice"),
        ({"user": "1", "age": 3}, "line 1 has to be"), ({"history": [{"item": "4", "time": "noon"}]}, "have to be finite numbers"),
        ({"history": [{"item": "4", "time": float("nan")}]}, "have to be finite numbers"),
        ({"history": [{"item": "4", "event": ["q"]}]}, "is of kind"),
        ({"user": "1", "control": "short"}, "has to be an object of codes"),
    ],
)  # fmt: skip
def test_users_that_cannot_be_served_are_named(run, tmp_path, line, said):
    from rgjax.data import asked
    from rgjax.errors import UserError

    (tmp_path / "users.jsonl").write_text(json.dumps(line) + "\n")
    data = ring.following(200)
    named = type(data.items)([str(i + 1) for i in range(ring.ITEMS)], data.items.titles, data.items.attributes)
    import dataclasses

    with pytest.raises(UserError, match=said):
        asked.read(str(tmp_path / "users.jsonl"), dataclasses.replace(data, items=named, users=[str(u + 1) for u in range(200)]), False)


def test_what_is_refused(run, source, tmp_path):
    folder, _ = run
    (tmp_path / "users.jsonl").write_text('{"user": "1"}\n')
    usual = {"workdir": folder, "input": tmp_path / "users.jsonl", "output": tmp_path / "o.jsonl"}
    assert "--top=25 is more than the 24 items" in _refused("recommend", **usual, top=25)
    assert not (tmp_path / "o.jsonl").exists()
    assert "--only=genre=Jazz" in _refused("recommend", **usual, only="genre=Jazz")
    assert "--models=magic has 'magic'" in _refused("recommend", **usual, models="magic")
    assert "'bpr', which knows only users" in _refused("recommend", **usual, models="bpr")
    assert "--init_from" in _refused("train", **SMALL, source=source, workdir=tmp_path / "w", init_from="x")


def test_what_evaluate_refuses(run, source):
    mine, shop = {"workdir": run[0]}, {"source": source, "layout": "ml1m"}
    asked = [
        (shop | {"at": 99}, "--at=99"),
        (shop | {"models": "magic"}, "'magic'"),
        (shop | {"train_on_validation": True, "split": "val"}, "--split=val was trained on"),
        (shop | {"hybrid": True, "split": "val"}, "--hybrid learns"),
        (shop | {"against": "x"}, "--against is for written reasons"),
        (shop | {"checkpoint": "last"}, "--checkpoint chooses"),
        (shop | {"measure": "demand", "at": 5}, "--at is for rankings, and --measure=demand"),
        (shop | {"measure": "basket", "split": "test"}, "--split is for rankings"),
        (mine | {"hold_out": "weeks"}, "--hold_out is for a shop"),
        (mine | {"source": source.parent}, "ml-1m.txt is missing"),
        (mine | {"source": source, "dataset": source}, "either --dataset"),
    ]
    of_texts = {"outputs": "x", "against": "x", "earlier": "x", "ablate_vectors": True, "weights": "int8", "max_words": 9, "method": "beam"}
    asked += [(mine | {name: value}, f"--{name} is for written reasons") for name, value in of_texts.items()]
    for flags, said in asked:
        assert said in _refused("evaluate", **flags)


@pytest.mark.parametrize(
    "program,flags,said",
    [
        ("generate", {"input": "x"}, "trained a model of behaviour"), ("export", {}, "trained a model of behaviour"),
        ("distill", {}, "trained a model of behaviour"), ("inspect", {}, "writes no text"), ("show", {}, "no written reasons to show"),
        ("embed", {"input": "x"}, "makes no vectors of texts"),
    ],
)  # fmt: skip
def test_programs_of_reasons_refuse_a_run_of_behaviour(run, tmp_path, program, flags, said):
    folder = {"inspect": "path", "embed": "init_from"}.get(program, "workdir")
    output = {} if program in ("inspect", "show") else {"output": tmp_path / "o"}
    assert said in _refused(program, **{folder: run[0]} | output | flags)

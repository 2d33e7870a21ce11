"""The oracle benchmark: figures of generators that are known, and a run that goes on where it was interrupted."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from environment import QUICK, ROOT

from rgjax.config import AdversarialConfig, BenchConfig, DiscriminatorConfig, OracleConfig
from rgjax.errors import UserError
from rgjax.tasks.text_gans import oracle, oracle_report, results

SMALL, TRUTH = BenchConfig(mle_epochs=2, rounds=20), OracleConfig(oracle="drawn", oracle_texts=1000, oracle_vocabulary=30)
GAN, JUDGE = AdversarialConfig(d_steps=1, d_warmup=0, completions=1), DiscriminatorConfig(d_width=4, d_filters=2, d_windows="2")


@pytest.fixture(scope="module")
def bench():
    return oracle.Bench(SMALL, GAN, JUDGE, oracle.truth(TRUTH))


def test_the_oracle_itself_diverges_from_itself_by_nothing(bench):
    found = bench.measured(bench.truth.params, 0)
    assert abs(found["j"]) < 0.05 and found["nll_oracle"] == pytest.approx(found["nll_div"], abs=1e-5)


def test_uniform_tokens_have_the_vocabularys_entropy(bench):
    flat = jax.tree.map(lambda a: a * 0, bench.truth.params)
    found = bench.measured(flat, 0)
    assert found["nll_div"] == pytest.approx(math.log(30), abs=1e-4) and found["nll_test"] == pytest.approx(math.log(30), abs=1e-4)
    texts = bench.write(flat, jax.random.key(4000), 1000, 1.0)
    assert found["nll_oracle"] == pytest.approx(float(-np.mean(bench.truth.factory.model(bench.truth.params).log_probs(texts))), rel=1e-4)
    assert found["j"] == pytest.approx(found["nll_oracle"] - found["nll_div"] + found["nll_test"] - bench.truth.entropy)


def test_cold_sampling_buys_likelihood_and_pays_in_both_others(bench):
    warm, cold = bench.measured(bench.truth.params, 0), bench.measured(bench.truth.params, 0, 0.5)
    assert cold["nll_oracle"] < warm["nll_oracle"] - 0.2 and cold["nll_div"] < warm["nll_div"] - 0.2
    assert cold["nll_test"] > warm["nll_test"] and cold["j"] > 0.2


@pytest.mark.parametrize("row", ["random_reward", "reinforce", "wasserstein"])  # the others differ in the loss alone
def test_every_row_trains(bench, row):
    params = bench.factory.fresh(jax.random.key(0))
    tuned, noticed = bench.tuned(row, 0, params)
    assert bench.rounds(row)[1] is bench.rounds(row)[1]  # compiled once for all seeds
    assert all(np.isfinite(bench.measured(tuned, 0)[name]) for name in oracle_report.COLUMNS)
    assert noticed["metrics"]["grad_norm"] > 0 and ("d_loss" in noticed["metrics"]) == ("reward" not in row)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(tuned), jax.tree.leaves(params), strict=True))


def test_rows_are_named():
    assert results.parse("mle, mle@0.5,hinge,mle") == ["mle", "mle@0.5", "hinge"]
    for text in ("", "seqgan", "mle@", "mle@-1", "hinge@2"):
        with pytest.raises(UserError, match="--rows"):
            results.parse(text)


def test_figures_are_kept_and_not_computed_again(tmp_path, monkeypatch):
    show = lambda done, total: None
    one = dataclasses.replace(SMALL, rows="mle,constant_reward", seeds=1)
    first, table = oracle_report.evaluate(one, GAN, JUDGE, TRUTH, str(tmp_path), show)
    assert set(first["mle"]) == {*oracle_report.COLUMNS, "spread", "seeds"} and "constant_reward" in table
    assert first["mle"]["j"] == first["mle"]["seeds"][0]["j"]
    monkeypatch.setattr(oracle.Bench, "learned", lambda *_: pytest.fail("learned again"))
    more, _ = oracle_report.evaluate(dataclasses.replace(one, rows="mle,mle@0.7,constant_reward"), GAN, JUDGE, TRUTH, str(tmp_path), show)
    assert more["mle"] == first["mle"] and more["mle@0.7"]["nll_div"] < first["mle"]["nll_div"]
    assert first["constant_reward"]["seeds"][0]["options"]["g_learning_rate"] == 1e-2
    with pytest.raises(UserError, match="--completions_every=20 completes nothing of texts of 20 tokens"):
        late = dataclasses.replace(GAN, completions=2, completions_every=20)
        oracle_report.evaluate(dataclasses.replace(one, rows="mle,reinforce"), late, JUDGE, TRUTH, "", show)
    with pytest.raises(UserError, match="--rounds"):
        oracle_report.evaluate(dataclasses.replace(one, rounds=21), GAN, JUDGE, TRUTH, str(tmp_path), show)
    with pytest.raises(UserError, match="--d_codes"):
        oracle_report.evaluate(one, GAN, dataclasses.replace(JUDGE, d_codes=True), TRUTH, "", show)
    stored = json.loads((tmp_path / "oracle.json").read_text())
    del stored["options"]["d_codes"]  # as of a version that had no such option
    (tmp_path / "oracle.json").write_text(json.dumps(stored))
    assert oracle_report.evaluate(one, GAN, JUDGE, TRUTH, str(tmp_path), show)[0]["mle"] == first["mle"]
    del stored["options"]["d_norm"]
    (tmp_path / "oracle.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="--d_norm=None"):
        oracle_report.evaluate(one, GAN, dataclasses.replace(JUDGE, d_norm=True), TRUTH, str(tmp_path), show)
    (tmp_path / "oracle.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        oracle_report.evaluate(one, GAN, JUDGE, TRUTH, str(tmp_path), show)


def test_what_is_no_oracle_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    parts = {part: np.zeros((3, 3), np.float32) for parts in oracle.PARTS.values() for part in parts}
    np.savez(tmp_path / "c.npz", **parts)
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises(UserError, match=name):
            oracle.read(str(tmp_path / name))


def launch(*flags):
    command = [sys.executable, "-m", "launch.evaluate", *flags]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": QUICK}, capture_output=True, text=True, timeout=300)


def test_the_command(tmp_path):
    small = ("--oracle_texts=640", "--oracle_vocabulary=20", "--mle_epochs=1", "--rounds=20")
    done = launch("--flagfile=configs/oracle.cfg", "--rows=mle,constant_reward", "--seeds=1", *small)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"nll_oracle", "nll_test", "nll_div", "j"} <= set(found["mle"]) & set(found["constant_reward"])
    refused = launch("--rows=mle", "--workdir=nowhere")
    assert refused.returncode == 2 and "--rows" in refused.stderr and "--oracle" in refused.stderr
    refused = launch("--oracle=missing.npz")
    assert refused.returncode == 2 and "missing.npz" in refused.stderr and "Traceback" not in refused.stderr

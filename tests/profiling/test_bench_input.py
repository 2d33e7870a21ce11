"""profiling.input and profiling.real_text on the tiny shop: the same examples and targets on both sides."""

import json
import os
import subprocess
import sys

import pytest
from environment import ROOT, SMALL

from profiling import raw
from rgjax.data.dataset import Dataset

pytestmark = pytest.mark.parity
LAYOUT = ("--length=192", "--target_length=64", "--batch_size=4", "--copy_slots=none")


@pytest.fixture(autouse=True)
def peer():
    for name in ("torch", "transformers"):
        pytest.importorskip(name)


def test_the_input_of_both_sides_is_counted(dataset_folder, benchmark):
    small = ("--layers=1", "--width=32", "--heads=2", "--batches=4", "--rounds=3", "--timed_steps=5")
    told, printed = benchmark("input", f"--dataset={dataset_folder}", *LAYOUT, *small)
    assert {"ours", "peer", "ratio", "device", "versions"} <= set(told) and "efficiency" in printed
    assert told["ours"]["side"].startswith("packed") and told["ours"]["side"] in told["rounds"]
    for side in told["sides"].values():
        assert side["padding_share"] == pytest.approx(1 - side["packing_efficiency"]) and 0.3 < side["packing_efficiency"] <= 1
    means = {name: side["tokens_per_second"] / side["examples_per_second"] for name, side in told["sides"].items()}
    assert means["peer, 0 workers"] == pytest.approx(means["packed, 0 workers"] + 1, rel=0.2)  # ours leaves the last token to the targets


@pytest.mark.parametrize("packing", ["packing", "nopacking"])
def test_real_texts_are_the_same_on_both_sides(packing, dataset_folder, benchmark, sound):
    told, printed = benchmark("real_text", f"--dataset={dataset_folder}", *LAYOUT, *SMALL, f"--{packing}", "--examples=24")
    sound(told, "ours", "peer")
    ours, peer = told["ours"], told["peer"]
    assert peer["examples"] >= ours["examples"] >= 24 and peer["examples"] == peer["steps"] * peer["rows"]
    assert told["losses"]["ours"] == pytest.approx(told["losses"]["peer"], rel=1e-5)  # of the same examples
    assert peer["mega_batch_mult"] == min(50, peer["grouped_examples"] // (4 * peer["rows"])) and "sorted together" in printed
    assert peer["epoch"]["mean_target_tokens"] == pytest.approx(ours["epoch"]["mean_target_tokens"], rel=0.02)
    assert peer["epoch"]["mean_tokens"] == pytest.approx(ours["epoch"]["mean_tokens"] + 1, rel=0.02)  # ours leaves the last to the targets
    for side in (ours, peer):
        assert side["mean_target_tokens"] == pytest.approx(side["epoch"]["mean_target_tokens"], rel=0.1)
        assert side["seconds"] == pytest.approx(1e5 * side["pass_seconds"] / side["target_tokens"])
        assert side["target_tokens_per_second"] == pytest.approx(side["target_tokens"] / side["pass_seconds"])


def test_sides_in_processes_of_their_own_take_turns(dataset_folder, benchmark, sound):
    told, _ = benchmark("real_text", f"--dataset={dataset_folder}", *LAYOUT, *SMALL, "--nopacking", "--examples=8", "--apart", "--compile_peer=false")
    sound(told, "ours", "peer")
    assert told["apart"] and told["ours"]["target_tokens"] > 0 and told["peer"]["target_tokens"] > 0


def adverts(folder) -> list[dict]:
    """Raw data in the layout of AdvertiseGen."""
    lines = [{"content": f"类型#裙*颜色#色{n}", "summary": f"这条裙子的颜色是色{n}。"} for n in range(40)]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return lines


def test_raw_data_is_trained_on_as_usual_but_for_the_commands_own_flags(benchmark, sound, tmp_path):
    adverts(tmp_path)
    own = ("--width=32", "--heads=2", "--batch_size=2", "--row_length=256", "--rounds=3", "--examples=4")
    told, _ = benchmark("real_text", f"--source={tmp_path}", *own)
    sound(told, "ours", "peer")
    assert told["layout"] == "packed" and {"layers": 4, "max_positions": 512, "width": 32, "batch_size": 2}.items() <= told["shape"].items()


def test_raw_data_is_read_by_the_flagfile_that_fits_it(tmp_path, capsys):
    lines = adverts(tmp_path)
    assert (cfg := raw.flagfile(str(tmp_path))).endswith("configs/data/advertisegen.cfg")
    assert "is read by configs/data/advertisegen.cfg" in capsys.readouterr().err
    made = Dataset.open(raw.prepared(str(tmp_path), cfg, str(tmp_path / "made")))
    assert {e["reason"] for e in made.examples("train")} <= {line["summary"] for line in lines} and made.count("train") > 20


def test_a_source_that_nothing_reads_is_refused(benchmark, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"other": 1}\n' * 3)
    for flags, said in (
        (
            [f"--source={tmp_path}"],
            "is read by no flagfile of configs/data; give launch.prepare's flagfile for it as --prepare.",
        ),
        (["--source=nowhere"], "--source=nowhere does not exist"),
        (["--source=here", "--dataset=there"], "--source and --dataset are both given"),
        (["--prepare=configs/data/xrec.cfg"], "--prepare=configs/data/xrec.cfg is for raw data"),
    ):
        assert said in benchmark("real_text", *flags, code=2)[1]


def test_without_a_dataset_the_demos_is_made(tmp_path):
    small = ("--layers=1", "--width=32", "--heads=2", "--batches=1", "--rounds=3", "--timed_steps=5", "--nopeer", *LAYOUT)
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-m", "profiling.input", *small], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "making the demo's" in done.stderr and (tmp_path / "runs/demo-data/dataset.json").is_file()
    assert json.loads(done.stdout.splitlines()[-1])["step"]["tokens_per_second"] > 0

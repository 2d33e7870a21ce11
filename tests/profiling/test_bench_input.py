"""profiling.input and profiling.real_text on the tiny shop: the same examples and targets on both sides."""

import pytest
from environment import SMALL

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
    told, _ = benchmark("real_text", f"--dataset={dataset_folder}", *LAYOUT, *SMALL, f"--{packing}", "--examples=24")
    sound(told, "ours", "peer")
    ours, peer = told["ours"], told["peer"]
    assert ours["examples"] == peer["examples"] >= 24 and ours["target_tokens"] == peer["target_tokens"] > 0
    assert told["losses"]["ours"] == pytest.approx(told["losses"]["peer"], rel=1e-5)
    assert peer["tokens"] == ours["tokens"] + ours["examples"]


def test_sides_in_processes_of_their_own_take_turns(dataset_folder, benchmark, sound):
    told, _ = benchmark("real_text", f"--dataset={dataset_folder}", *LAYOUT, *SMALL, "--nopacking", "--examples=8", "--apart", "--compile_peer=false")
    sound(told, "ours", "peer")
    assert told["apart"] and told["ours"]["target_tokens"] == told["peer"]["target_tokens"] > 0


def test_a_source_without_its_flagfile_is_refused(benchmark):
    _, errors = benchmark("real_text", "--source=somewhere", code=2)
    assert "--prepare is missing" in errors
    _, errors = benchmark("real_text", code=2)
    assert "--dataset" in errors and "--source" in errors

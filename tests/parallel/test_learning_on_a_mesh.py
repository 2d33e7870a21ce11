"""Training by what was written, and by scores of single tokens, on four fake devices beside one: the same texts, and the same figures of both."""

import json

import pytest
from launched import Launched

SHARED = {"task": "", "length": 128, "target_length": 24, "packing": "false", "buckets": 1, "steps": 3, "log_every": 1, "samples": 0}
SHARED |= {"eval_every": 100, "save_every": 100}
KINDS = {
    "grpo": {"task": "grpo", "batch_size": 4, "rewards": "repetition=1,grounding=1", "group": 2, "learning_rate": 1e-3, "warmup_steps": 0, "ema": 0},
    "adversarial": {
        "task": "adversarial", "batch_size": 8, "estimator": "reinforce", "gan_loss": "bce", "completions": 2, "completions_every": 8, "d_steps": 1,
        "d_warmup": 1, "d_width": 8, "d_filters": 4, "d_windows": "2,3", "d_codes": "true", "old_samples": 4,
    },
    "gumbel": {
        "task": "adversarial", "batch_size": 8, "estimator": "gumbel", "gan_loss": "relativistic", "d_steps": 1, "d_warmup": 1, "d_width": 8,
        "discriminator": "transformer", "d_heads": 2, "d_layers": 1,
    },
    "contrast": {"task": "reason", "batch_size": 8, "code_contrast": 0.5, "scan": "false"},  # the last layer answers at targets alone
    "bfloat16": {"task": "reason", "batch_size": 8, "dtype": "bfloat16"},  # on CPUs, XLA ends the process where such sums leave a shard_map
    "pairs": {"task": "reason", "batch_size": 8, "preference": "dpo", "preference_beta": 0.5, "learning_rate": 1e-3, "warmup_steps": 0},
}  # fmt: skip
TOLD = {"grpo": ("loss", "kl", "reward_repetition", "distinct_2"), "adversarial": ("loss", "d_loss", "d_codes_told", "reward", "distinct_2")}
TOLD |= {"gumbel": ("loss", "d_loss", "g_loss", "grad_norm", "entropy", "self_overlap")}
TOLD |= {"bfloat16": ("loss", "grad_norm"), "contrast": ("loss", "codes_told", "grad_norm"), "pairs": ("loss", "accuracy", "margin", "grad_norm")}


@pytest.mark.parametrize("kind", KINDS)
def test_four_devices_learn_as_one(kind, dataset_folder, pairs_folder, unbroken_run, tmp_path):
    runs, dataset = {}, pairs_folder if kind == "pairs" else dataset_folder
    for name, devices, mesh in (("one", 1, "data:1"), ("four", 4, "data:2,fsdp:2")):
        flags = {"init_from": unbroken_run, "dataset": dataset, "workdir": tmp_path / name, "mesh": mesh}
        runs[name] = Launched("launch.train", SHARED | KINDS[kind] | flags, devices)
    told = {}
    for name, process in runs.items():
        out, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
        assert json.loads(out.splitlines()[-1])["finished"]
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        told[name] = [[line.get(key) for key in TOLD[kind]] for line in lines]
    assert len(told["one"]) == 3
    assert all(any(value is not None for value in values) for values in zip(*told["one"], strict=True))
    for one, four in zip(told["one"], told["four"], strict=True):
        assert four == [None if value is None else pytest.approx(value, rel=2e-3, abs=1e-5) for value in one]

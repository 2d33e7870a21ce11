"""A run in int8 as a user asks for it: written with, measured beside floats, and handed over."""

import json

import numpy as np
import pytest
from launched import launch, refused, result
from safetensors.numpy import load_file

from rgjax.data.dataset import Dataset
from rgjax.tasks.run import Run


def test_a_run_is_written_with_measured_and_handed_over_in_int8(unbroken_run, dataset, tmp_path):
    inputs = tmp_path / "in.jsonl"
    rows = [{k: v for k, v in example.items() if k != "reason"} for example, _ in zip(dataset.examples("val"), range(3), strict=False)]
    inputs.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    flags = {"workdir": unbroken_run, "input": inputs, "max_new_tokens": 12}
    result(launch("generate", **flags, output=tmp_path / "int8.jsonl", weights="int8"))
    run = Run.open(unbroken_run)
    decode = run.facts["decode"].__class__(max_new_tokens=12)
    expected = run.kept("int8").task.writer(run.kept("int8").params, decode).write(rows)
    assert [json.loads(line)["reason"] for line in (tmp_path / "int8.jsonl").read_text().splitlines()] == [r[0] for r in expected]
    own = (unbroken_run / "evaluation.json").exists()
    measured = result(launch("evaluate", workdir=unbroken_run, weights="int8", resamples=100, limit=4, max_new_tokens=12))
    assert measured["output"] == str(unbroken_run / "evaluations" / "int8" / "evaluation.json") and measured["weights"] == "int8"
    ours, plain = measured["references"]["loss"], measured["references_float"]["loss"]
    assert ours != plain and ours == pytest.approx(plain, abs=0.02)
    assert plain == pytest.approx(run.perplexity(Dataset.open(dataset.folder), "val")["loss"], abs=1e-5)
    assert own == (unbroken_run / "evaluation.json").exists()  # the run's own scores stay
    exported = result(launch("export", workdir=unbroken_run, output=tmp_path / "hf", export_dtype="int8"))
    assert exported["dtype"] == "int8"
    assert any(array.dtype == np.int32 for array in load_file(tmp_path / "hf" / "model.safetensors").values())
    refused(launch("export", workdir=unbroken_run, output=tmp_path / "x", export_dtype="int8", adapter_only=True), "--export_dtype=int8")


def test_adapters_named_per_line_stand_on_one_model_in_int8(unbroken_run, dataset, start_training, tmp_path):
    out, errors = (process := start_training(tmp_path / "lora", init_from=unbroken_run, adapter="lora", rank=2, learning_rate=0.02)).communicate()
    assert process.returncode == 0, errors
    result(launch("export", workdir=tmp_path / "lora", adapter_only=True, output=tmp_path / "adapter"))
    row = {k: v for k, v in next(iter(dataset.examples("val"))).items() if k != "reason"}
    inputs = tmp_path / "in.jsonl"
    inputs.write_text(json.dumps(row) + "\n" + json.dumps(row | {"adapter": "a"}) + "\n")
    flags = {"workdir": tmp_path / "lora", "adapters": f"a={tmp_path / 'adapter'}", "weights": "int8", "max_new_tokens": 12}
    result(launch("generate", **flags, input=inputs, output=tmp_path / "out.jsonl"))
    own, named = (json.loads(line)["reason"] for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert own == named

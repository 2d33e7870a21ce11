"""--init_from as a user gives it: training that begins with a Hugging Face folder, and export that only reads and writes one."""

import json
import shutil

import launched
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from rgjax.data.tokenizer import Tokenizer
from rgjax.hf import export


def launch(name, **flags):
    return launched.run(f"launch.{name}", flags)


def finished(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def refused(done, *words):
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr and all(word in told for word in words), done.stderr


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A Hugging Face folder whose shape is that of the runs of `start_training`, with the dataset's vocabulary."""
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    return tmp_path / "hf"


def assert_same_weights(one, other):
    before, after = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert set(before) == set(after)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_a_folder_is_written_again_without_training(folder, tmp_path):
    again = tmp_path / "again"
    done = launch("export", init_from=folder, output=again)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["family"] == "llama"
    assert_same_weights(folder, again)
    assert (folder / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()
    assert json.loads((folder / "config.json").read_text()) == json.loads((again / "config.json").read_text())
    refused(launch("export", init_from=folder, workdir=tmp_path, output=tmp_path / "more"), "--workdir", "--init_from")
    refused(launch("export", init_from=tmp_path, output=tmp_path / "more"), "config.json", "missing")
    refused(launch("export", init_from=folder, output=tmp_path / "more", checkpoint="last"), "--checkpoint", "--init_from")
    refused(launch("export", init_from=folder, output=folder / ".." / "hf", overwrite=True), "--output", "which is read")
    larger = Tokenizer.load(folder)
    larger.backend.add_tokens(["<|added|>"])
    larger.save(folder)
    refused(launch("export", init_from=folder, output=tmp_path / "more"), "601 tokens", "vocab_size=600")
    assert not (tmp_path / "more").exists()


def test_training_begins_with_the_folder_and_goes_on_without_it(folder, start_training, tmp_path):
    """With a learning rate of 0 the run keeps the weights it began with, on a mesh that cuts every axis."""
    flags = {"init_from": folder, "mesh": "data:1,fsdp:2,tensor:2", "learning_rate": 0, "ema": 0.5, "save_every": 2}
    flags |= {"schedule": "constant", "steps": 2}
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    workdir = tmp_path / "run"
    finished(start_training(workdir, devices=4, **flags))
    assert json.loads((workdir / "config.json").read_text())["model"]["head_dim"] == 8
    shutil.rmtree(folder)
    assert finished(start_training(workdir, devices=4, **flags | {"steps": 4}))["step"] == 4
    done = launch("export", workdir=workdir, output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert_same_weights(kept, tmp_path / "out")
    assert "trained from the weights of `hf` with rgjax" in (tmp_path / "out" / "README.md").read_text()
    first, *others = tiny.logged_losses(workdir).values()
    assert first > 0 and len(others) == 3


def test_what_contradicts_the_folder_stops_before_the_run_exists(folder, dataset_folder, tmp_path):
    flags = {"dataset": dataset_folder, "workdir": tmp_path / "run", "init_from": folder, "length": 96, "target_length": 32}
    refused(launch("train", **flags, width=48), "--width=48", str(folder), "32")
    refused(launch("train", **flags, embeddings=1000), "--embeddings=1000", "600")
    (folder / "model.safetensors").write_bytes(b"short")
    refused(launch("train", **flags), "model.safetensors", "fetch it again")
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_written_for_sentence_transformers_only_where_that_makes_sense(folder, tmp_path):
    refused(launch("export", init_from=folder, output=tmp_path / "more", sentence_pooling="mean"), "--sentence_pooling=mean", "llama", "bert")
    refused(launch("export", workdir=tmp_path, output=tmp_path / "more", sentence_pooling="cls"), "--sentence_pooling", "--workdir")
    refused(launch("embed", init_from=folder, input=folder / "config.json", output=tmp_path / "v.parquet"), "llama", "makes no vectors")
    assert {p.name for p in tmp_path.iterdir()} == {"hf"}

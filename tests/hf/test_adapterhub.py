"""Bottleneck adapters against the `adapters` library: its logits, and its files written as they were."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_load import GOLDEN, our_logits, read

from rgjax.errors import UserError
from rgjax.hf import adapterhub
from rgjax.models.adapted import AdaptedFactory

ADAPTERS = pathlib.Path(__file__).parent / "golden_adapters"
NAMES = sorted(p.name for p in ADAPTERS.iterdir())


def opened(name):
    """(family, factory, weights, inputs) of a golden base with its golden adapter."""
    base = name.split("_")[0]
    source, factory, params = read(GOLDEN / base)
    config, values = adapterhub.read(ADAPTERS / name, factory, source.family)
    assert config.bottleneck == name.split("_")[1] and config.reduction == 4
    return source.family, AdaptedFactory(factory, config), {**params, "adapter": values}, load_file(GOLDEN / base / "expected.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_library(name):
    _, factory, weights, given = opened(name)
    shown, theirs, plain = given["attention_mask"] > 0, load_file(ADAPTERS / name / "expected.safetensors")["logits"], given["logits"]
    ours = our_logits(factory, weights, given)
    if theirs.shape[:2] == shown.shape:
        ours, theirs, plain = ours[shown], theirs[shown], plain[shown]
    assert np.abs(theirs - plain).max() > 0.1
    # The golden bases are steep (T5's scores are unscaled), and float32 agrees with itself no better there.
    np.testing.assert_allclose(ours, theirs, atol=1e-4 if "t5" in name else 1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_library_wrote_is_written_alike(name, tmp_path):
    family, factory, weights, _ = opened(name)
    adapterhub.write(tmp_path, factory, family, jax.device_get(weights["adapter"]), name.split("_")[1])
    theirs, ours = (load_file(folder / adapterhub.WEIGHTS) for folder in (ADAPTERS / name, tmp_path))
    assert theirs.keys() == ours.keys()
    for tensor, value in theirs.items():
        np.testing.assert_array_equal(ours[tensor], value, err_msg=tensor)
    before, after = (json.loads((folder / adapterhub.CONFIG).read_text()) for folder in (ADAPTERS / name, tmp_path))
    assert {k: before["config"][k] for k in after["config"]} == after["config"]
    for described in (before, after):
        described.pop("config"), described.pop("model_name")
    assert before == after


def test_other_adapters_are_refused(tmp_path):
    source, factory, _ = read(GOLDEN / "gpt2")
    llama = read(GOLDEN / "llama")
    with pytest.raises(UserError, match="another base"):
        adapterhub.read(ADAPTERS / "gpt2_houlsby", llama[1], llama[0].family)
    shutil.copytree(ADAPTERS / "gpt2_houlsby", tmp_path / "a")
    body = json.loads((tmp_path / "a" / adapterhub.CONFIG).read_text())
    (tmp_path / "a" / adapterhub.CONFIG).write_text(json.dumps(body | {"config": body["config"] | {"use_gating": True}}))
    with pytest.raises(UserError, match="use_gating=True"):
        adapterhub.read(tmp_path / "a", factory, source.family)
    (tmp_path / "a" / adapterhub.CONFIG).write_text(json.dumps(body))
    tensors = load_file(tmp_path / "a" / adapterhub.WEIGHTS)
    bias = next(n for n in tensors if n.endswith("adapter_down.0.bias"))
    for odd, words in ((np.zeros(len(tensors[bias]) + 1, np.float32), f"{bias} has shape"), (np.zeros(5, np.int64), f"{bias} of type I64")):
        save_file(tensors | {bias: odd}, tmp_path / "a" / adapterhub.WEIGHTS)
        with pytest.raises(UserError, match=words):
            adapterhub.read(tmp_path / "a", factory, source.family)
    save_file(tensors | {"more": np.zeros(1, np.float32)}, tmp_path / "a" / adapterhub.WEIGHTS)
    with pytest.raises(UserError, match="holds more"):
        adapterhub.read(tmp_path / "a", factory, source.family)

"""Folders in int8: what is stored, what is refused, and that transformers computes our int8 model from them."""

import json

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from rgjax.errors import UserError
from rgjax.hf import export
from rgjax.hf.load import Pretrained
from rgjax.models import quantized
from rgjax.models.adapted import MATRIX

HELD = ("llama", "llama_tied", "qwen2", "qwen3", "mistral", "bart")


@pytest.fixture(scope="module")
def in_int8(exported, tokenizer, tmp_path_factory):
    """in_int8(name) -> (factory and weights of our int8 model with float tables, the float folder, the int8 folder)."""
    made = {}

    def get(name):
        if name not in made:
            factory, params, plain = exported(name)
            folder = tmp_path_factory.mktemp("int8") / name
            export.write(folder, params, factory.config, tokenizer, family="mistral" if name == "mistral" else "auto", dtype="int8")
            light, weights = quantized.lighter(factory), quantized.in_int8(factory, params)
            light.paths = [path for path in light.paths if MATRIX.search(path)]
            made[name] = (light, weights | {"embedding": params["embedding"]}, plain, folder)
        return made[name]

    return get


@pytest.mark.parametrize("name", ["llama", "bart"])
def test_matrices_are_packed_and_all_else_is_as_it_was(in_int8, name):
    light, _, plain, folder = in_int8(name)
    before, after = load_file(plain / "model.safetensors"), load_file(folder / "model.safetensors")
    packed = [n.removesuffix("_packed") for n in after if n.endswith("_packed")]
    assert len(packed) == (2 * 7 if name == "llama" else 2 * 10 + 3 * 6)  # of two layers; of two decoder and three encoder layers
    for tensor in packed:
        w, words, scale = before[tensor], after.pop(f"{tensor}_packed"), after.pop(f"{tensor}_scale")
        assert tuple(after.pop(f"{tensor}_shape")) == w.shape and words.dtype == np.int32 and scale.shape == (len(w), 1)
        bits = (words[:, :, None] >> (8 * np.arange(4))) & 255  # the first weight lowest
        q = bits.reshape(len(w), -1)[:, : w.shape[1]] - 128
        assert np.all(np.abs(w - q * scale) <= scale * 0.5001)
        del before[tensor]
    assert before.keys() == after.keys()
    for tensor, values in before.items():
        np.testing.assert_array_equal(after[tensor], values)
    said = json.loads((folder / "config.json").read_text())
    assert said["quantization_config"]["format"] == "pack-quantized" and said["dtype"] == "float32"


def test_what_the_format_does_not_hold_or_we_do_not_read_is_refused(exported, in_int8, tokenizer, tmp_path):
    for name, why in (("gpt2", "no torch Linear"), ("t5_relu", "can't load compressed"), ("bert", "writes no text")):
        factory, params, _ = exported(name)
        with pytest.raises(UserError, match=f"--export_dtype=int8 does not hold a {name.partition('_')[0]} model, which .*{why}"):
            export.write(tmp_path / name, params, factory.config, tokenizer, dtype="int8")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="has quantization_config"):
        Pretrained.open(str(in_int8("llama")[3]))


@pytest.mark.parity
@pytest.mark.parametrize("name", HELD)
def test_transformers_computes_our_int8_model(in_int8, tokenizer, name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    light, weights, plain, folder = in_int8(name)
    seq2seq = light.config.architecture == "seq2seq"
    kind = transformers.AutoModelForSeq2SeqLM if seq2seq else transformers.AutoModelForCausalLM
    rng = np.random.default_rng(0)
    prompt, target = (rng.integers(3, tokenizer.vocab_size, n).tolist() for n in (17, 12))
    shifted = [tokenizer.pad_id, *target[:-1]]
    batch = tiny.row([shifted], 12) | tiny.row([prompt], 17, "encoder_") if seq2seq else tiny.row([prompt], 17)
    given = {"input_ids": torch.tensor([prompt])} | ({"decoder_input_ids": torch.tensor([shifted])} if seq2seq else {})

    def theirs(path):
        model = kind.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(**given).logits.numpy()

    head, shrink = light.model(weights).head()
    ours = np.asarray(jax.jit(lambda p, b: light.model(p)(b))(weights, batch)) * shrink @ np.asarray(head).T
    found = theirs(folder)
    np.testing.assert_allclose(ours, found, atol=1e-4, rtol=0)
    assert np.abs(found - theirs(plain)).max() > 1e-3  # it is the rounded model that was computed

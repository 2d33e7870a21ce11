"""Exported models in transformers: nothing missing, the same logits, the same texts."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from rgjax.config import DecodeConfig, ModelConfig
from rgjax.data.template import Rendered
from rgjax.decode.prompt import pad_left
from rgjax.decode.writer import Writer
from rgjax.hf import export
from rgjax.hf.load import Pretrained
from rgjax.models.build import ModelFactory
from rgjax.parallel import mesh as mesh_lib

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity
GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = list(tiny.EXPORTED)


def load(folder):
    kind = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model, info = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    problems = {name: value for name, value in info.items() if value}
    assert not problems
    return model.eval()


@pytest.mark.parametrize("name", sorted(p.name for p in GOLDEN.iterdir()))
def test_what_torch_made_and_we_wrote_again_is_the_same_to_torch(tokenizer, tmp_path, name):
    source = Pretrained.open(str(GOLDEN / name))
    config = dataclasses.replace(ModelConfig(), **source.options, embeddings=source.folder.config["vocab_size"])
    params = source.params(ModelFactory(config, config.embeddings), mesh_lib.make("data:1"))
    export.write(tmp_path / name, params, config, tokenizer, family=source.family.name, token_ids=source.folder.token_ids())
    given = {k: torch.tensor(v) for k, v in load_file(GOLDEN / name / "expected.safetensors").items()}
    logits = given.pop("logits").numpy()
    theirs = [GOLDEN / name] if int(transformers.__version__.split(".")[0]) >= 5 else []  # 4 misses the rotary base that 5 wrote
    exact = []  # in double precision: what differs then differs in the weights or the configuration, on any machine
    for folder in (tmp_path / name, *theirs):
        with torch.no_grad():
            out = load(folder).double()(**given)
        exact.append(out.get("logits", out.get("pooler_output")).numpy())
    np.testing.assert_allclose(exact[0], exact[-1], atol=1e-10, rtol=0)
    np.testing.assert_allclose(exact[0], logits, atol=5e-5, rtol=0)  # recorded in float32


def prompts_of(tokenizer, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, tokenizer.vocab_size, n).tolist() for n in lengths]


def our_logits(factory, params, batch):
    if factory.config.architecture == "encoder":
        return np.asarray(factory.model(params).logits(tiny.hidden(factory, params, batch)))
    head, shrink = (factory.model(params)).head()
    return tiny.hidden(factory, params, batch) * shrink @ np.asarray(head).T


def their_batch(tokenizer, prompts, model):
    """Padded on the left, but for BART on the right: its encoder counts positions from the first column, whatever is there."""
    tokens, lengths = pad_left(prompts, max(map(len, prompts)), tokenizer.pad_id)
    mask = np.arange(tokens.shape[1])[None] >= tokens.shape[1] - lengths[:, None]
    if model.config.model_type == "bart":
        tokens, mask = (np.stack([np.roll(row, n) for row, n in zip(x, lengths, strict=True)]) for x in (tokens, mask))
    return torch.tensor(tokens).long(), torch.tensor(mask).long()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_equal_in_a_left_padded_batch(exported, tokenizer, name):
    factory, params, folder = exported(name)
    prompts, model = prompts_of(tokenizer, (9, 30, 1, 17)), load(folder)
    tokens, mask = their_batch(tokenizer, prompts, model)
    targets = prompts_of(tokenizer, (12,) * 4, seed=1)
    seq2seq = factory.config.architecture == "seq2seq"
    with torch.no_grad():
        if seq2seq:
            shifted = torch.tensor([[tokenizer.pad_id, *t[:-1]] for t in targets])
            theirs = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=shifted).logits.numpy()
            with_labels = model(input_ids=tokens, attention_mask=mask, labels=torch.tensor(targets)).logits.numpy()
            np.testing.assert_allclose(with_labels, theirs, atol=1e-5)  # their own shift begins with padding too
        else:
            theirs = model(tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits.numpy()
    for r, prompt in enumerate(prompts):
        if seq2seq:
            batch = tiny.row([[tokenizer.pad_id, *targets[r][:-1]]], 12) | tiny.row([prompt], 30, "encoder_")
            ours, expected = our_logits(factory, params, batch)[0], theirs[r]
        else:
            ours, expected = our_logits(factory, params, tiny.row([prompt], 30))[0, : len(prompt)], theirs[r, -len(prompt) :]
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


def narrowed(factory, params, tokenizer, letters, **decoding):
    """A writer that may write a few letters only, and the ids that transformers must suppress for the same."""
    writer = Writer(factory, params, tokenizer, DecodeConfig(**{"decode_batch": 4, "max_new_tokens": 10} | decoding))
    banned = ~np.isin(np.arange(tokenizer.vocab_size), [tokenizer.eos_id, *letters])
    writer.rules = dataclasses.replace(writer.rules, banned_V=banned)
    return writer, np.flatnonzero(banned).tolist()


@pytest.fixture(scope="module")
def letters(tokenizer):
    return [i for i, t in enumerate(tokenizer.token_bytes()) if t.strip().isalpha() and t.isascii()][::29][:8]


def generated(model, tokenizer, prompts, suppress, **options):
    tokens, mask = their_batch(tokenizer, prompts, model)
    options = {"max_new_tokens": 10, "do_sample": False, "suppress_tokens": suppress} | options
    out = model.generate(tokens, attention_mask=mask, output_scores=True, return_dict_in_generate=True, **options)
    start = 1 if model.config.is_encoder_decoder else tokens.shape[1]
    texts = []
    for row in out.sequences[:, start:].tolist():
        texts.append(row[: row.index(tokenizer.eos_id)] if tokenizer.eos_id in row else [t for t in row if t != tokenizer.pad_id])
    return texts, getattr(out, "sequences_scores", None)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "bart", "t5_geglu", "t5_relu"])
def test_greedy_texts_are_equal(exported, tokenizer, letters, name):
    factory, params, folder = exported(name)
    prompts = prompts_of(tokenizer, (9, 30, 2, 17))
    writer, suppress = narrowed(factory, params, tokenizer, letters)
    ours = [h.ids for (h,) in writer.write([Rendered(p, [], {}, False) for p in prompts])]
    theirs, _ = generated(load(folder), tokenizer, prompts, suppress)
    assert ours == theirs
    assert [tokenizer.decode(ids) for ids in ours] == transformers.AutoTokenizer.from_pretrained(folder).batch_decode(theirs)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_guided_texts_are_equal(exported, tokenizer, letters, name):
    factory, params, folder = exported(name)
    prompts, plain = prompts_of(tokenizer, (9, 30, 2, 17)), prompts_of(tokenizer, (8, 29, 1, 16), seed=1)
    writer, suppress = narrowed(factory, params, tokenizer, letters, guidance=2.0)
    ours = [h.ids for (h,) in writer.write([Rendered(p, [], {}, False, plain_ids=q) for p, q in zip(prompts, plain, strict=True)])]
    model, theirs = load(folder), []
    for prompt, without in zip(prompts, plain, strict=True):  # alone: their second prompt knows no padding
        theirs += generated(model, tokenizer, [prompt], suppress, guidance_scale=2.0, negative_prompt_ids=torch.tensor([without]))[0]
    assert ours == theirs
    assert ours != [h.ids for (h,) in narrowed(factory, params, tokenizer, letters)[0].write([Rendered(p, [], {}, False) for p in prompts])]


@pytest.mark.parametrize(
    "name, penalty", [("llama", 0.0), ("llama", 1.0), ("llama", 2.0), ("t5_geglu_tied", 1.0), ("t5_geglu_tied", -1.0)]
)
def test_beams_are_equal(exported, tokenizer, letters, name, penalty):
    factory, params, folder = exported(name)
    prompts = prompts_of(tokenizer, (9, 30, 2, 17, 5, 8), seed=2)
    writer, suppress = narrowed(
        factory, params, tokenizer, letters, method="beam", beams=3, length_penalty=penalty, decode_batch=18
    )
    found = writer.write([Rendered(p, [], {}, False) for p in prompts])
    theirs, scores = generated(
        load(folder), tokenizer, prompts, suppress, num_beams=3, num_return_sequences=3, length_penalty=penalty, renormalize_logits=True,
    )  # fmt: skip
    np.testing.assert_allclose([h.score for row in found for h in row], scores.numpy(), atol=1e-3)
    assert [h.ids for row in found for h in row] == theirs


def test_sharded_folders_load_alike(exported, tokenizer, tmp_path):
    factory, params, folder = exported("qwen3")
    export.write(tmp_path / "qwen3_shards", params, factory.config, tokenizer, shard_bytes=20_000)
    assert (tmp_path / "qwen3_shards" / "model.safetensors.index.json").exists()
    whole, parts = load(folder).state_dict(), load(tmp_path / "qwen3_shards").state_dict()
    assert set(whole) == set(parts) and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_every_parameter_matters(exported, tokenizer):
    """A tensor that the other side ignored would leave its logits unchanged when ours change."""
    factory, params, _ = exported("llama")
    batch = tiny.row(prompts_of(tokenizer, (12,)), 30)
    before = our_logits(factory, params, batch)
    leaves, tree = jax.tree.flatten(params)
    for i in range(len(leaves)):
        changed = jax.tree.unflatten(tree, [a * 1.5 if i == j else a for j, a in enumerate(leaves)])
        assert np.abs(our_logits(factory, changed, batch) - before)[:, :12].max() > 1e-4

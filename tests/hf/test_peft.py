"""Adapters in PEFT's format: PEFT computes our logits with them, and they are read again as they were."""

import json
import re

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.hf import export, families, peft
from rgjax.models import merge
from rgjax.models.adapted import AdaptedFactory
from rgjax.nn.adapters import lowrank

KINDS = {
    "lora": {"adapter": "lora", "rank": 3, "alpha": 5.0},
    "lora_qv": {"adapter": "lora", "rank": 3, "targets": r"attention.w[qv]$"},
    "rslora": {"adapter": "lora", "rank": 3, "alpha": 5.0, "rslora": True},
    "dora": {"adapter": "lora", "rank": 3, "dora": True},
    "adalora": {"adapter": "adalora", "rank": 2, "initial_rank": 4},
    "ia3": {"adapter": "ia3"},
    "prefix": {"adapter": "prefix", "virtual_tokens": 3},
    "prompt": {"adapter": "prompt", "virtual_tokens": 3},
}
BASES = {name: (name, {"head_dim": 5} if name == "gpt2" else {}) for name in ("llama", "qwen3", "gpt2", "t5", "bart", "bert")}
CASES = [
    (base, kind) for base in BASES for kind in KINDS
    if not (kind == "prefix" and base in ("t5", "bart", "bert")) and not (kind == "prompt" and base == "bert")
]  # fmt: skip


@pytest.fixture(scope="session")
def adapted(tmp_path_factory, tokenizer):
    """adapted(base, kind) -> (factory, weights, base folder, adapter folder); every adapter value random."""
    bases, made = {}, {}

    def get(base, kind):
        if base not in bases:
            name, changes = BASES[base]
            factory = tiny.factory(name, tokenizer.vocab_size, **changes)
            folder = tmp_path_factory.mktemp("bases") / base
            export.write(folder, tiny.params(factory, noise=0.05), factory.config, tokenizer)
            bases[base] = factory, tiny.params(factory, noise=0.05), folder
        if (base, kind) not in made:
            factory, params, folder = bases[base]
            new = AdaptedFactory(factory, AdapterConfig(**KINDS[kind]))
            weights, rng = new.fresh(jax.random.key(0), params), np.random.default_rng(1)
            # T5 leaves scores unscaled: with more noise its softmax is too steep for float32 to agree with itself.
            spread = 0.05 if base == "t5" and kind != "prompt" else 0.2
            noise = lambda a: np.array(a + rng.normal(0, spread, a.shape), np.float32)
            weights = {**weights, "adapter": jax.tree.map(noise, weights["adapter"])}
            if kind == "adalora":  # as after pruning: whole triplets are zero, in one matrix all of them
                for path, e in trees.flat(weights["adapter"]):
                    if path.endswith(".e"):
                        e[rng.random(e.shape) < 0.4] = 0.0
                next(e for p, e in trees.flat(weights["adapter"]) if p.endswith(".e"))[0] = 0.0
            target = tmp_path_factory.mktemp("adapters") / f"{base}_{kind}"
            target.mkdir()
            peft.write(target, new, families.choose(factory.config, "auto"), weights["adapter"], str(folder))
            made[base, kind] = new, weights, folder, target
        return made[base, kind]

    return get


def inputs(factory, tokenizer):
    """(our batch, ids, decoder ids or None) of one row each of 9 and 14 tokens."""
    rng = np.random.default_rng(0)
    ids, more = rng.integers(3, tokenizer.vocab_size, 14), rng.integers(3, tokenizer.vocab_size, 9)
    hidden = factory.adapter.virtual_tokens if factory.adapter.adapter == "prompt" else 0
    first = [0] * hidden + ids.tolist()
    if factory.config.architecture == "seq2seq":
        return tiny.row([more.tolist()], len(more)) | tiny.row([first], len(first), "encoder_"), ids, more
    return tiny.row([first], len(first)), ids, None


def our_logits(factory, weights, batch):
    if factory.config.architecture == "encoder":
        own = {name: value for name, value in weights.items() if name != "adapter"}
        return np.asarray(jax.jit(lambda w: factory.base.model(own).logits(factory.model(w)(batch)))(weights))
    head, shrink = factory.model(weights).head()
    return np.asarray(jax.jit(lambda w: factory.model(w)(batch))(weights)) * shrink @ np.asarray(head).T


@pytest.mark.parity
@pytest.mark.filterwarnings("error:Found missing adapter keys")
@pytest.mark.parametrize("base, kind", CASES)
def test_peft_computes_our_logits(adapted, tokenizer, base, kind):
    torch, transformers, peft_library = (pytest.importorskip(name) for name in ("torch", "transformers", "peft"))
    factory, weights, folder, target = adapted(base, kind)
    batch, ids, more = inputs(factory, tokenizer)
    kinds = {"seq2seq": transformers.AutoModelForSeq2SeqLM, "causal": transformers.AutoModelForCausalLM, "encoder": transformers.AutoModelForMaskedLM}
    plain = kinds[factory.config.architecture].from_pretrained(folder, dtype=torch.float32).eval()
    given = {"input_ids": torch.tensor(ids)[None], "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    given |= {} if more is None else {"decoder_input_ids": torch.tensor(more)[None]}
    with torch.no_grad():
        before = plain(**given).logits
        after = peft_library.PeftModel.from_pretrained(plain, target).eval()(**given).logits
    ours = our_logits(factory, weights, batch)[0, -len(ids) if more is None else 0 :]
    theirs = after[0, -len(ids) if more is None else 0 :].numpy()
    assert np.abs(theirs - before[0].numpy()).max() > 1e-2  # a wrong name would load in silence and do nothing
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("base, kind", CASES)
def test_what_is_written_is_read_again(adapted, tokenizer, base, kind):
    factory, weights, _, target = adapted(base, kind)
    config, values = peft.read(target, factory.base, families.choose(factory.config, "auto"))
    again = AdaptedFactory(factory.base, config)
    batch, *_ = inputs(factory, tokenizer)
    if kind != "adalora":  # pruned triplets come back in another place
        for (path, a), (other, b) in zip(sorted(trees.flat(weights["adapter"])), sorted(trees.flat(values)), strict=True):
            assert path == other
            np.testing.assert_array_equal(a, b, err_msg=path)
    np.testing.assert_allclose(our_logits(again, {**weights, "adapter": values}, batch), our_logits(factory, weights, batch), atol=1e-5)


@pytest.mark.parametrize("base, kind", [c for c in CASES if c[1] not in ("prefix", "prompt")])
def test_merged_equals_unmerged(adapted, tokenizer, base, kind):
    factory, weights, *_ = adapted(base, kind)
    batch, *_ = inputs(factory, tokenizer)
    own = merge.merged(factory, weights)
    blank = AdaptedFactory(factory.base, AdapterConfig(adapter="lora", rank=1))
    plain = our_logits(blank, blank.fresh(jax.random.key(0), own), batch)  # a fresh LoRA adds nothing
    np.testing.assert_allclose(plain, our_logits(factory, weights, batch), atol=1e-4)  # sums in another order
    if kind == "dora":
        with pytest.raises(UserError, match="taken out"):
            merge.unmerged(factory, own, weights["adapter"])
        return
    back = merge.unmerged(factory, own, weights["adapter"])
    for path, leaf in trees.flat(back):
        np.testing.assert_allclose(leaf, trees.at(weights, path), atol=1e-5, err_msg=path)


def test_adapters_that_do_not_fit_are_refused(adapted, tmp_path):
    llama, _, _, target = adapted("llama", "lora")
    gpt2 = adapted("gpt2", "lora")[0]
    family = families.choose(llama.config, "auto")
    with pytest.raises(UserError, match="another base"):
        peft.read(target, gpt2.base, families.choose(gpt2.config, "auto"))

    def broken(change_config=None, change_tensors=None):
        body, tensors = json.loads((target / peft.CONFIG).read_text()), load_file(target / peft.WEIGHTS)
        (change_config or (lambda b: None))(body)
        (change_tensors or (lambda t: None))(tensors)
        (tmp_path / peft.CONFIG).write_text(json.dumps(body))
        save_file(tensors, tmp_path / peft.WEIGHTS)
        return lambda: peft.read(tmp_path, llama.base, family)

    name = next(iter(load_file(target / peft.WEIGHTS)))
    with pytest.raises(UserError, match="OFT"):
        broken(lambda b: b.update(peft_type="OFT"))()
    with pytest.raises(UserError, match="bias='all'"):
        broken(lambda b: b.update(bias="all"))()
    with pytest.raises(UserError, match="lacks the tensor"):
        broken(None, lambda t: t.pop(name))()
    with pytest.raises(UserError, match=r"has shape \[2, 2\]"):
        broken(None, lambda t: t.update({name: np.zeros((2, 2), np.float32)}))()
    with pytest.raises(UserError, match="surplus"):
        broken(None, lambda t: t.update(surplus=np.zeros(2, np.float32)))()
    (tmp_path / peft.WEIGHTS).write_bytes(b"truncated")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        peft.read(tmp_path, llama.base, family)
    (tmp_path / peft.WEIGHTS).unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickle"):
        peft.read(tmp_path, llama.base, family)


PATTERNS = ({"q_proj": 160}, {"k_proj": 160}, {r"layers\.1\..*down_proj": 160, "q_proj": 1}, {"self_attn": 99})


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_patterns_of_alpha_are_read_as_peft_reads_them(adapted, tmp_path, pattern):
    factory, _, _, target = adapted("llama", "lora")
    body, tensors = json.loads((target / peft.CONFIG).read_text()), load_file(target / peft.WEIGHTS)
    change(target, tmp_path, alpha_pattern=pattern)
    config, values = peft.read(tmp_path, factory.base, families.choose(factory.config, "auto"))
    for ours, theirs in {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "mlp.w_out": "mlp.down_proj"}.items():
        found = trees.at(values, f"decoder.blocks.{ours}")
        for i in range(2):
            name = f"model.layers.{i}.{theirs}"
            alpha = next((v for p, v in pattern.items() if re.match(rf"(.*\.)?({p})$", name)), body["lora_alpha"])
            a, b = (tensors[f"{peft.PREFIX}{name}.lora_{x}.weight"] for x in "AB")
            np.testing.assert_allclose(lowrank.scale(config) * found["a"][i] @ found["b"][i], (b @ a).T * alpha / len(a), rtol=1e-5, atol=1e-6)


def change(source, target, tensors=None, **fields):
    """The adapter's folder again, with other fields or tensors."""
    body = json.loads((source / peft.CONFIG).read_text())
    (target / peft.CONFIG).write_text(json.dumps(body | fields))
    save_file(load_file(source / peft.WEIGHTS) | (tensors or {}), target / peft.WEIGHTS)


@pytest.mark.parametrize(
    "kind, fields, tensors, words",
    [
        ("lora", {"use_qalora": True}, {}, "use_qalora=True"),
        ("lora", {"alora_invocation_tokens": [1]}, {}, "alora_invocation_tokens"),
        ("lora", {"a_field_of_tomorrow": 3}, {}, "a_field_of_tomorrow=3"),
        ("lora", {"init_lora_weights": "pissa"}, {}, "pissa"),
        ("lora", {"bias": "all"}, {}, "bias='all'"),
        ("lora", {"lora_alpha": float("nan")}, {}, "lora_alpha=nan"),
        ("lora", {"r": "8"}, {}, "r='8'"),
        ("prompt", {"num_virtual_tokens": None}, {}, "num_virtual_tokens=None"),
        ("lora", {"alpha_pattern": {"(": 1}}, {}, "no regular expression"),
        ("prompt", {}, {"more": np.zeros(2, np.float32)}, "holds more beside prompt_embeddings"),
        ("prompt", {"num_virtual_tokens": 2}, {}, "prompt_embeddings has shape"),
        ("prompt", {}, {"prompt_embeddings": np.zeros((5, 32), np.int64)}, "is of type I64"),
        ("prompt", {}, {"prompt_embeddings": np.full((5, 32), np.nan, np.float32)}, "no numbers"),
    ],
)
def test_what_is_not_computed_is_refused(adapted, tmp_path, kind, fields, tensors, words):
    factory, _, _, target = adapted("llama", kind)
    shape = lambda a: np.resize(a, (factory.adapter.virtual_tokens, factory.config.width)) if a.ndim == 2 else a
    change(target, tmp_path, {name: shape(a) for name, a in tensors.items()}, **fields)
    with pytest.raises(UserError, match=words):
        peft.read(tmp_path, factory.base, families.choose(factory.config, "auto"))

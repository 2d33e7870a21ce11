"""The contrast of codes: which tokens are exchanged, and the loss against examples alone in their rows, scored by hand."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import InputConfig, ModelConfig
from rgjax.errors import UserError
from rgjax.tasks.reason import ReasonTask, sums
from rgjax.tasks.training import assemble, swaps_of
from rgjax.train.contrast import DRAW, Swaps, contrast_sums, swapped
from rgjax.train.distillation import Distillation

KEY = jax.random.key(0)
CODES = {"alone": [3], "style": [4, 5], "topic": [6, 7, 8, 9]}
SWAPS = Swaps.of(CODES, 50, 0.5)
exchanged = jax.jit(lambda tokens, segments, seed: swapped(tokens, segments, jax.random.key(seed), SWAPS))


@given(st.integers(0, 2**31 - 1), st.lists(st.integers(0, 3), min_size=12, max_size=12))
@settings(max_examples=60, deadline=None)
def test_one_code_of_each_example_has_another_value(seed, drawn):
    segments = np.sort(np.array(drawn).reshape(2, 6), axis=1)
    tokens = np.random.default_rng(seed).integers(0, 13, segments.shape)
    found = np.asarray(exchanged(tokens, segments, seed))
    for b in range(2):
        for segment in range(4):
            mine = segments[b] == segment
            changed, has = np.flatnonzero(mine & (found[b] != tokens[b])), mine & (tokens[b] >= 4) & (tokens[b] <= 9)
            assert len(changed) == (segment > 0 and has.any())
            for t in changed:
                assert any({int(tokens[b, t]), int(found[b, t])} <= set(values) for values in CODES.values())


def test_codes_and_values_are_drawn_evenly():
    """Of a style and a topic each is exchanged half of the time, and each other topic a third of that."""
    tokens, segments = np.tile([[1, 4, 2, 7, 0]], (6000, 1)), np.tile([[1, 1, 1, 1, 0]], (6000, 1))
    found = np.asarray(exchanged(tokens, segments, 1))
    assert (found[:, 1] == 5).mean() == pytest.approx(0.5, abs=0.03)
    for value in (6, 8, 9):
        assert (found[:, 3] == value).mean() == pytest.approx(1 / 6, abs=0.02)


def batch_of(made, seed: int = 0) -> dict:
    """Packed rows whose first example has two codes, the second none."""
    side = "encoder_" if made.config.architecture == "seq2seq" else ""
    batch = tiny.training_batch(made, 3, 16, seed)
    batch[f"{side}tokens"] = np.where(batch[f"{side}tokens"] < 10, 11, batch[f"{side}tokens"])
    batch[f"{side}tokens"][:, :2] = [[4, 6], [5, 9], [7, 8]]
    return {k: jnp.asarray(v) for k, v in batch.items()}


def by_hand(model, batch: dict, key) -> tuple:
    """(loss, right way round), example by example, from dense logits of the batch and of the exchanged one."""
    side = "encoder_" if "encoder_tokens" in batch else ""
    others = swapped(batch[f"{side}tokens"], batch[f"{side}segment_ids"], jax.random.fold_in(key, DRAW), SWAPS)
    head, shrink = model.head()
    logs = [jax.nn.log_softmax(model(b, key) * shrink @ head.T, axis=-1) for b in (batch, batch | {f"{side}tokens": others})]
    picked = [jnp.take_along_axis(log, batch["targets"][..., None], -1)[..., 0] * batch["weights"] for log in logs]
    loss = right = 0.0
    for b in range(len(batch["targets"])):
        mine = batch["segment_ids"][b] == 1  # the others have no code
        gain, n = jnp.sum((picked[0] - picked[1])[b] * mine), jnp.sum(batch["weights"][b] * mine)
        loss, right = loss + n * jnp.log1p(jnp.exp(-gain)), right + n * (gain > 0)
    return loss, right


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_an_example_counts_for_its_own_tokens(family):
    made = tiny.factory(family)
    params = tiny.params(made)
    ours = lambda p, batch: contrast_sums(model := made.model(p), model(batch, KEY), batch, KEY, SWAPS)
    hands = lambda p, batch: by_hand(made.model(p), batch, KEY)
    ours, hands = (jax.jit(jax.value_and_grad(f, has_aux=True)) for f in (ours, hands))
    share = []
    for seed in range(4):
        batch = batch_of(made, seed)
        (loss, right), gradient = ours(params, batch)
        (expected, expected_right), expected_gradient = hands(params, batch)
        assert float(loss) == pytest.approx(float(expected), rel=1e-4) and float(right) == float(expected_right)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3), gradient, expected_gradient)
        share.append(float(right / batch["weights"].sum()))
    assert 0 < max(share) and min(share) < 1


def test_it_is_added_in_training_alone():
    made = tiny.factory("llama")
    params, batch = tiny.params(made), batch_of(made, 3)
    run = jax.jit(lambda p, key, swaps: sums(made.model(p), batch, key, swaps=SWAPS if swaps else None), static_argnums=2)
    told, plain = run(params, KEY, True), run(params, KEY, False)
    contrast, right = jax.jit(lambda p: contrast_sums(model := made.model(p), model(batch, KEY), batch, KEY, SWAPS))(params)
    assert float(told["loss"]) == pytest.approx(float(plain["loss"] + 0.5 * contrast), rel=1e-5)
    assert float(told["codes_told"]) == float(right) and float(told["nll"]) == pytest.approx(float(plain["nll"]), rel=1e-5)
    assert "codes_told" not in run(params, None, True)


def test_what_gives_it_nothing_is_refused(tokenizer):
    task = ReasonTask(tokenizer, InputConfig(dataset="D"), ModelConfig(dropout=0.1))
    assert swaps_of(task, 0.0, {}) is None
    with pytest.raises(UserError, match="--code_contrast=0.5 needs a control code with two values, and D"):
        swaps_of(task, 0.5, {"style": ["concise"]})
    with pytest.raises(UserError, match="--code_contrast=0.5 and --rdrop are both given"):
        task.loss(0.0, rdrop=1.0, swaps=SWAPS)
    with pytest.raises(UserError, match="--code_contrast=0.5 and --distill are both given"):
        task.loss(0.0, distill=Distillation(0.0, 1.0), swaps=SWAPS)
    with pytest.raises(UserError, match=r"--code_contrast=0.5 exchanges tokens, and <\|style=unheard\|> is none"):
        swaps_of(task, 0.5, {"style": ["concise", "unheard"]})
    task.input = dataclasses.replace(task.input, loss_on="all")
    with pytest.raises(UserError, match="--code_contrast=0.5 compares reasons, and --loss_on=all"):
        swaps_of(task, 0.5, {"style": ["concise", "detailed"]})
    task.input = dataclasses.replace(task.input, prompt="chat")
    with pytest.raises(UserError, match="--code_contrast=0.5 exchanges .*--prompt=chat"):
        swaps_of(task, 0.5, {"style": ["concise", "detailed"]})


def test_a_run_with_it(dataset_folder, tmp_path):
    """Accumulated, logged, and continued like any other."""
    sections = tiny.sections(dataset_folder, tmp_path / "run", {"batch_size": 4}, optimizer={"code_contrast": 0.5, "accumulate": 2})
    assemble(sections, None, set()).run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line["codes_told"] for line in lines if "codes_told" in line]
    assert len(told) == 6 and all(0 <= share <= 1 for share in told) and max(told) > 0

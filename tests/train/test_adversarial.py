"""A round of adversarial training: who moves when, what is kept, and that it repeats exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rgjax.config import AdversarialConfig, DiscriminatorConfig
from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.tasks.text_gans.unconditional import FixedLength
from rgjax.train import adversarial
from rgjax.train.adversarial import D, G
from rgjax.train.state import TrainState

V, T, B = 7, 5, 4
WRITER = ModelFactory(LSTMConfig(6, 6, 0.5), V, LSTM)
JUDGE = ModelFactory(DiscriminatorConfig(d_width=8, d_filters=4, d_windows="1,2"), V, discriminator.build)
WRITING = FixedLength(B, T)
QUICK = AdversarialConfig(estimator="gumbel", d_steps=2, d_warmup=1, completions=2, g_learning_rate=0.05, d_learning_rate=0.05)


def begin(config):
    params = {G: WRITER.fresh(jax.random.key(0)), D: JUDGE.fresh(jax.random.key(1))}
    opt_state = adversarial.optimizers(config, WRITING).init(params)
    return TrainState(jnp.int32(0), params, opt_state, {}, jax.random.key_data(jax.random.key(2)))


def real(steps, seed=0):
    return {"texts": jnp.asarray(np.random.default_rng(seed).integers(0, V, (steps, B, T)), jnp.int32)}


def moved(before, after):
    return any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def one(config, rounds=11):
    return jax.jit(adversarial.make_round(WRITER, JUDGE, WRITING, config, rounds))


@pytest.mark.parametrize("changes", [
    {"gan_loss": "relativistic"}, {"gan_loss": "wasserstein", "nll_weight": 0.5}, {"estimator": "reinforce", "gan_loss": "bce", "old_samples": 8},
], ids=str)  # fmt: skip
def test_sides_take_turns_and_a_round_repeats(changes):
    config = dataclasses.replace(QUICK, **changes)
    step, state = one(config), begin(config)
    warm, told = step(state, real(3))
    assert not moved(state.params[G], warm.params[G]) and moved(state.params[D], warm.params[D])
    assert np.isnan(told["g_loss"]) and np.isfinite(told["d_loss"])
    first, told = step(warm, real(3, 1))
    assert moved(warm.params[G], first.params[G]) and moved(warm.params[D], first.params[D])
    assert all(np.isfinite(value) for value in told.values()), told
    again, _ = step(warm, real(3, 1))
    assert not moved(first, again)
    assert int(first.step) == 2
    if config.old_samples:
        old = first.opt_state["old"]
        assert int(old.written) == 4 and np.asarray(old.texts.tokens[:4]).any() and not np.asarray(old.texts.tokens[4:]).any()


def test_a_constant_reward_needs_no_judge_and_is_its_own_gradient():
    """Reward 1 lowers -log p of what was written: one clipped Adam step from the same gradient, taken by hand."""
    config = dataclasses.replace(QUICK, estimator="reinforce", reward="constant", baseline="none", d_steps=0, d_warmup=0)
    state, texts = begin(config), real(1)
    after, told = one(config)(state, texts)
    key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.key), 0), 1)[0]
    written = WRITING.sample(WRITER.model(state.params[G]), jax.random.split(key, 3)[0], {}).tokens
    grads = jax.grad(lambda p: -jnp.mean(WRITER.model(p).log_probs(written)))(state.params[G])
    tx = optax.chain(optax.clip_by_global_norm(config.g_clip), optax.adam(config.g_learning_rate))
    updates, _ = tx.update(grads, tx.init(state.params[G]))
    expected = optax.apply_updates(state.params[G], updates)
    for mine, theirs in zip(jax.tree.leaves(after.params[G]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert not moved(state.params[D], after.params[D]) and float(told["reward"]) == 1


@pytest.mark.parametrize("changes", [{"gan_loss": "nonsaturating"}, {"estimator": "reinforce", "gan_loss": "nonsaturating"}], ids=str)
def test_a_generator_learns_what_the_real_texts_are_made_of(changes):
    """Real texts hold only one token, written at first as often as any other."""
    config = dataclasses.replace(QUICK, d_warmup=5, d_learning_rate=0.01, g_learning_rate=0.02, **changes)
    step, state = one(config, 65), begin(config)
    texts = jnp.full((3, B, T), 4, jnp.int32)
    for _ in range(65):
        state, _ = step(state, {"texts": texts})
    share = lambda s: float(jnp.mean(jnp.exp(WRITER.model(s.params[G]).log_probs(texts[0]))))
    assert share(begin(config)) < 0.25 and share(state) > 0.6


class Coded(FixedLength):
    """Texts that were written for a code, 1 or 2, which a judge reads; the code 0 stands for none."""

    def real(self, batch):
        return self.texts(batch["texts"]), {"codes": batch["codes"]}

    def read(self, given):
        return adversarial.Texts(given["codes"][:, None], jnp.ones((B, 1), jnp.int32))

    def miscoded(self, given, key):
        return {"codes": jnp.where(given["codes"] > 0, 3 - given["codes"], 0)}, given["codes"] > 0


@pytest.mark.parametrize("loss", ["relativistic", "bce"])
def test_a_judge_learns_which_codes_a_text_is_for(loss):
    """Real texts repeat the token 2 + code; the generator rests."""
    config, judge = dataclasses.replace(QUICK, gan_loss=loss, d_warmup=60, d_learning_rate=0.02), JUDGE.model
    step, state, rng = jax.jit(adversarial.make_round(WRITER, JUDGE, Coded(B, T), config, 61)), begin(config), np.random.default_rng(0)
    for _ in range(60):
        codes = rng.integers(0, 3, (3, B))
        codes[:, 0] = 1 + codes[:, 0] % 2
        texts = np.broadcast_to(2 + codes[..., None], (3, B, T))
        state, told = step(state, {"texts": jnp.asarray(texts, jnp.int32), "codes": jnp.asarray(codes, jnp.int32)})
    assert told["d_codes_told"] == 1
    text, mask = jnp.array([[3] * T, [4] * T]), jnp.ones((2, T), jnp.int32)
    own, other = (judge(state.params[D])(text, mask, (jnp.array(codes), jnp.ones((2, 1)))) for codes in ([[1], [2]], [[2], [1]]))
    assert (own > other).all()


def test_half_of_what_a_judge_sees_as_written_is_old():
    """With what it was written for; all of it is new as long as there is none."""
    fresh = (adversarial.Texts(jnp.full((B, T), 1), jnp.ones((B, T))), {"codes": jnp.full(B, 1)})
    kept = (adversarial.Texts(jnp.repeat(jnp.arange(2, 10)[:, None], T, 1), jnp.ones((8, T))), {"codes": jnp.arange(2, 10)})
    mixed = lambda written: adversarial._mixed(adversarial.Old(*kept, jnp.int32(written)), fresh, jax.random.key(0))
    (texts, _), given = mixed(3)
    np.testing.assert_array_equal(texts[:, 0], given["codes"])
    assert set(np.asarray(given["codes"][: B // 2]).tolist()) <= {2, 3, 4} and (given["codes"][B // 2 :] == 1).all()
    assert (mixed(0)[1]["codes"] == 1).all()


def test_the_heat_runs_from_start_to_end():
    for schedule, half in (("exponential", 0.5**0.5), ("linear", 0.75), ("constant", 1.0)):
        config = dataclasses.replace(QUICK, heat_schedule=schedule)
        found = [float(adversarial.heat(config, jnp.float32(done))) for done in (-1.0, 0.0, 0.5, 1.0, 2.0)]
        end = 1.0 if schedule == "constant" else 0.5
        np.testing.assert_allclose(found, [1.0, 1.0, half, end, end], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"estimator": "none"}, "--estimator"), ({"reward": "constant"}, "--reward"), ({"d_steps": 0}, "--d_steps"),
     ({"d_steps": 0, "estimator": "reinforce", "reward": "random"}, "--d_warmup"),
     ({"old_samples": 5}, "--old_samples"), ({"estimator": "reinforce", "reward": "constant"}, "--baseline"),
     ({"estimator": "reinforce", "completions": 2, "completions_every": T}, "--completions_every=5 completes nothing of texts of 5 tokens")],
)  # fmt: skip
def test_contradictions_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        adversarial.check(dataclasses.replace(QUICK, **changes), B, T)

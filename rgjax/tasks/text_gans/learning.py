"""What the benchmarks of text GANs share: an LSTM learns texts by likelihood, and is then tuned against a discriminator, or without one."""

from __future__ import annotations

import abc
import dataclasses
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rgjax.config import AdversarialConfig, BenchConfig, DiscriminatorConfig
from rgjax.decode import recurrent
from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.tasks.text_gans.unconditional import FixedLength
from rgjax.train import adversarial
from rgjax.train.adversarial import D, G
from rgjax.train.collapse import Collapse
from rgjax.train.state import TrainState

BATCH, MEASURED = 64, 500  # texts of a step, texts measured together
PUBLISHED = 20  # epochs of the row that is to be compared with published NLL_oracle
CHECKED = 20  # rounds between two looks at a run
_reinforce = {"estimator": "reinforce", "gan_loss": "bce"}
ROWS = {
    "constant_reward": {**_reinforce, "reward": "constant", "baseline": "none", "d_steps": 0, "d_warmup": 0},
    "random_reward": {**_reinforce, "reward": "random", "baseline": "none", "d_steps": 0, "d_warmup": 0},
    "reinforce": _reinforce,
    "gumbel_relativistic": {"estimator": "gumbel", "gan_loss": "relativistic"},
    **{name: {"estimator": "gumbel", "gan_loss": name} for name in ("bce", "nonsaturating", "hinge", "wasserstein")},
}


class Learned(NamedTuple):
    """Texts int32 [N, T] to learn from, and to stop by; how many tokens there are, and whether END ends a text before T."""

    train: jax.Array
    val: jax.Array
    vocab_size: int
    ends: bool = False


def options(row: str, config: BenchConfig, gan: AdversarialConfig) -> AdversarialConfig:
    """What a row's name decides, and of the rest what the flags say."""
    rate = config.reinforce_learning_rate if ROWS[row]["estimator"] == "reinforce" else gan.g_learning_rate
    return dataclasses.replace(gan, **ROWS[row], g_learning_rate=rate)


def at(params: dict, temperature: float) -> dict:
    """The generator whose distribution is that of `params` sampled at a temperature: its logits are divided by it."""
    return params | {name: params[name] / temperature for name in ("output", "b_vocab")}


def writer(factory: ModelFactory, length: int):
    """`write(params, key, count, temperature)` -> texts int32 [count, length]."""

    @partial(jax.jit, static_argnums=2)
    def part(params, key, rows, temperature):
        return recurrent.sample(factory.model(params), key, rows, length, temperature)

    def write(params: dict, key: jax.Array, count: int, temperature: float) -> jax.Array:
        keys = jax.random.split(key, -(-count // MEASURED))
        return jnp.concatenate([part(params, one, MEASURED, temperature) for one in keys])[:count]

    return write


def scorer(factory: ModelFactory, counted=jnp.ones_like):
    """`score(params, texts)` -> mean negative log-likelihood (nats) over the tokens of all texts where `counted(texts)` is 1."""

    @jax.jit
    def score(params, texts_NT, real_N):
        counts_NT = counted(texts_NT) * real_N[:, None]
        parts = (x.reshape(-1, MEASURED, x.shape[-1]) for x in (texts_NT, counts_NT))
        sums = jax.lax.map(lambda part: -jnp.sum(factory.model(params).log_probs(part[0]) * part[1]), tuple(parts))
        return jnp.sum(sums) / jnp.sum(counts_NT)

    def padded(params: dict, texts_NT: jax.Array) -> float:
        count = len(texts_NT)
        texts_NT = jnp.pad(texts_NT, ((0, -count % MEASURED), (0, 0)))
        return float(score(params, texts_NT, jnp.asarray(jnp.arange(len(texts_NT)) < count, jnp.float32)))

    return padded


class Bench(abc.ABC):
    """Everything that is compiled once for all rows and seeds. A benchmark says with `measured` how good a generator is."""

    def __init__(self, config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, learned: Learned, generator: LSTMConfig):
        self.config, self.gan, self.texts = config, gan, learned
        self.length = learned.train.shape[1]
        self.factory = ModelFactory(generator, learned.vocab_size, LSTM)
        self.judges = ModelFactory(judge, learned.vocab_size, discriminator.build)
        self.writing = FixedLength(BATCH, self.length, learned.ends)
        self.write, self.score = writer(self.factory, self.length), scorer(self.factory, self.counted)
        self.tx = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(config.mle_learning_rate))
        self.epoch, self.rounds = jax.jit(self._epoch), cache(self._rounds)

    @abc.abstractmethod
    def measured(self, params: dict, seed: int, temperature: float = 1.0) -> dict[str, float]:
        """The figures of a generator that is sampled at a temperature; raises UserError where it diverged."""

    def counted(self, texts_NT: jax.Array) -> jax.Array:
        """1 at each token whose likelihood counts, 0 elsewhere, [N, T]."""
        return self.writing.texts(texts_NT).mask

    def _epoch(self, params: dict, opt_state, key: jax.Array):
        """One pass over the training texts in random order."""
        texts_NT = self.texts.train
        count = len(texts_NT) // BATCH
        batches = texts_NT[jax.random.permutation(key, len(texts_NT))[: count * BATCH]].reshape(count, BATCH, self.length)

        def body(carry, batch_BT):
            params, opt_state = carry
            mask_BT = self.counted(batch_BT)
            grads = jax.grad(lambda p: -jnp.sum(self.factory.model(p).log_probs(batch_BT) * mask_BT) / jnp.sum(mask_BT))(params)
            updates, opt_state = self.tx.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(body, (params, opt_state), batches)[0]

    def learned(self, seed: int, published: bool) -> tuple[dict, int]:
        """(a generator of maximum likelihood, its epoch): that of the epoch which finds fresh texts likeliest, where two worse ones end the
        search; or that of epoch `PUBLISHED`, for figures of papers."""
        params = self.factory.fresh(jax.random.key(seed))
        opt_state, best = self.tx.init(params), (np.inf, params, 0)
        for epoch in range(1, (PUBLISHED if published else self.config.mle_epochs) + 1):
            params, opt_state = self.epoch(params, opt_state, jax.random.fold_in(jax.random.key(seed), epoch))
            if not published:
                best = min(best, (self.score(params, self.texts.val), params, epoch), key=lambda one: one[0])
                if epoch >= best[2] + 2:
                    break
        return (params, PUBLISHED) if published else best[1:]

    def tuned(self, row: str, seed: int, params: dict) -> tuple[dict, dict]:
        """(the generator after a row's rounds from `params`, what was noticed: the last metrics, and a collapse)."""
        config, some = self.rounds(row)
        both = {G: params, D: self.judges.fresh(jax.random.key(1000 + seed))}
        key = jax.random.key_data(jax.random.key(2000 + seed))
        state = TrainState(jnp.int32(0), both, adversarial.optimizers(config, self.writing).init(both), {}, key)
        rounds, watch, found = config.d_warmup + self.config.rounds, Collapse({}), {}
        while int(state.step) < rounds:
            count = min(CHECKED, rounds - int(state.step))
            state, found = some(state, jax.random.key(3000 + seed), count)
            if text := watch.note(int(state.step), {"distinct_2": float(found["distinct_2"])}, count):
                return state.params[G], {"note": text, "metrics": _plain(found)}
        return state.params[G], {"metrics": _plain(found)}

    def _rounds(self, row: str):
        """(a row's options, its `some(state, key, count) -> (state, mean metrics)` of so many rounds)."""
        config = options(row, self.config, self.gan)
        adversarial.check(config, BATCH, self.length)
        steps, rounds = config.d_steps + config.g_steps, config.d_warmup + self.config.rounds
        one = adversarial.make_round(self.factory, self.judges, self.writing, config, rounds)

        @partial(jax.jit, static_argnums=2)
        def some(state: TrainState, key: jax.Array, count: int):
            def body(state, key):
                return one(state, {"texts": self.texts.train[jax.random.randint(key, (steps, BATCH), 0, len(self.texts.train))]})

            state, found = jax.lax.scan(body, state, jax.random.split(jax.random.fold_in(key, state.step), count))
            return state, jax.tree.map(jnp.nanmean, found)

        return config, some


def finite(found: dict[str, float], seed: int) -> dict[str, float]:
    """The figures themselves; raises UserError where a generator diverged."""
    if odd := next((name for name, value in found.items() if not np.isfinite(value)), ""):
        raise UserError(f"A generator of seed {seed} diverged: its {odd} is {found[odd]}; lower the learning rates, or leave its row out.")
    return found


def _plain(found: dict) -> dict[str, float]:
    return {name: float(value) for name, value in found.items()}

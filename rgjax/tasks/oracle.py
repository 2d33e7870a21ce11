"""The oracle benchmark of text GANs (Yu et al. 2017, arXiv:1609.05473): texts of an LSTM with random weights are learned by another."""

from __future__ import annotations

import dataclasses
import zipfile
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rgjax.config import AdversarialConfig, DiscriminatorConfig, OracleConfig
from rgjax.decode import recurrent
from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.train import adversarial
from rgjax.train.adversarial import D, G, Texts
from rgjax.train.collapse import Collapse
from rgjax.train.state import TrainState

LENGTH, BATCH, MEASURED = 20, 64, 500  # tokens of a text, texts of a step, texts measured together
PUBLISHED = 20  # epochs of the row that is to be compared with published NLL_oracle
CHECKED = 20  # rounds between two looks at a run
ORACLE_KEY, GENERATOR = 20, LSTMConfig()
PARTS = {
    "tokens": ("embedding",), "w_in": ("Wi", "Wf", "Wo_gate", "Wc"), "w_hidden": ("Ui", "Uf", "Uo_gate", "Uc"),
    "b_in": ("bi", "bf", "bo_gate", "bc"), "output": ("W_out",), "b_vocab": ("b_out",),
}  # fmt: skip
_reinforce = {"estimator": "reinforce", "gan_loss": "bce"}
ROWS = {
    "constant_reward": {**_reinforce, "reward": "constant", "baseline": "none", "d_steps": 0, "d_warmup": 0},
    "random_reward": {**_reinforce, "reward": "random", "baseline": "none", "d_steps": 0, "d_warmup": 0},
    "reinforce": _reinforce,
    "gumbel_relativistic": {"estimator": "gumbel", "gan_loss": "relativistic"},
    **{name: {"estimator": "gumbel", "gan_loss": name} for name in ("bce", "nonsaturating", "hinge", "wasserstein")},
}


class Truth(NamedTuple):
    """The oracle, and texts of it int32 [N, T]: to learn from, to stop by, and to measure on; `entropy` is that of the last (nats per token)."""

    factory: ModelFactory
    params: dict
    train: jax.Array
    val: jax.Array
    test: jax.Array
    entropy: float


def truth(config: OracleConfig) -> Truth:
    """The oracle of --oracle with its texts, all from fixed keys; raises UserError when the file can't be used."""
    if config.oracle == "drawn":
        factory = ModelFactory(LSTMConfig(std=1.0), config.oracle_vocabulary, LSTM)
        params = factory.fresh(jax.random.key(ORACLE_KEY))
    else:
        params = read(config.oracle)
        size, width = params["tokens"].shape
        factory = ModelFactory(LSTMConfig(width, params["w_hidden"].shape[0]), size, LSTM)
    write, score = writer(factory), scorer(factory)
    train, val, test = (write(params, jax.random.key(ORACLE_KEY + i), config.oracle_texts, 1.0) for i in (1, 2, 3))
    return Truth(factory, params, train, val[: max(MEASURED, len(val) // 5)], test, score(params, test))


def read(path: str) -> dict:
    """An oracle's parameters from an .npz file of SeqGAN's arrays; raises UserError for what is none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            joined = {name: np.concatenate([found[part] for part in parts], axis=-1) for name, parts in PARTS.items()}
            shapes = {name: a.shape for name, a in joined.items()}
            (size, width), hidden = shapes["tokens"], shapes["w_hidden"][0]
            wanted = {"w_in": (width, 4 * hidden), "w_hidden": (hidden, 4 * hidden), "b_in": (4 * hidden,), "output": (hidden, size)}
            if odd := next((name for name, shape in wanted.items() if shapes[name] != shape), ""):
                raise ValueError(f"{' and '.join(PARTS[odd])} have other shapes than an LSTM's")
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise UserError(f"--oracle={path} is no .npz file of an oracle ({error}); give one with the arrays of SeqGAN's, or 'drawn'.") from None
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), joined)


def options(row: str, config: OracleConfig, gan: AdversarialConfig) -> AdversarialConfig:
    """What a row's name decides, and of the rest what the flags say."""
    rate = config.reinforce_learning_rate if ROWS[row]["estimator"] == "reinforce" else gan.g_learning_rate
    return dataclasses.replace(gan, **ROWS[row], g_learning_rate=rate)


def writer(factory: ModelFactory):
    """`write(params, key, count, temperature)` -> texts int32 [count, T]."""

    @partial(jax.jit, static_argnums=2)
    def part(params, key, rows, temperature):
        return recurrent.sample(factory.model(params), key, rows, LENGTH, temperature)

    def write(params: dict, key: jax.Array, count: int, temperature: float) -> jax.Array:
        keys = jax.random.split(key, -(-count // MEASURED))
        return jnp.concatenate([part(params, one, MEASURED, temperature) for one in keys])[:count]

    return write


def scorer(factory: ModelFactory):
    """`score(params, texts)` -> mean negative log-likelihood over texts and tokens (nats)."""

    @jax.jit
    def score(params, texts_NT, real_N):
        parts = (texts_NT.reshape(-1, MEASURED, LENGTH), real_N.reshape(-1, MEASURED))
        sums = jax.lax.map(lambda part: -jnp.sum(factory.model(params).log_probs(part[0]) * part[1][:, None]), parts)
        return jnp.sum(sums) / (jnp.sum(real_N) * LENGTH)

    def padded(params: dict, texts_NT: jax.Array) -> float:
        count = len(texts_NT)
        texts_NT = jnp.pad(texts_NT, ((0, -count % MEASURED), (0, 0)))
        return float(score(params, texts_NT, jnp.asarray(jnp.arange(len(texts_NT)) < count, jnp.float32)))

    return padded


@dataclasses.dataclass
class Bench:
    """Everything that is compiled once for all rows and seeds."""

    config: OracleConfig
    gan: AdversarialConfig
    judge: DiscriminatorConfig
    truth: Truth

    def __post_init__(self):
        self.factory = ModelFactory(GENERATOR, self.truth.factory.vocab_size, LSTM)
        self.judges = ModelFactory(self.judge, self.truth.factory.vocab_size, discriminator.build)
        self.write, self.score, self.score_oracle = writer(self.factory), scorer(self.factory), scorer(self.truth.factory)
        self.tx = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(self.config.mle_learning_rate))
        self.epoch = jax.jit(self._epoch)

    def _epoch(self, params: dict, opt_state, key: jax.Array):
        """One pass over the training texts in random order."""
        count = len(self.truth.train) // BATCH
        batches = self.truth.train[jax.random.permutation(key, len(self.truth.train))[: count * BATCH]].reshape(count, BATCH, LENGTH)

        def body(carry, batch_BT):
            params, opt_state = carry
            grads = jax.grad(lambda p: -jnp.mean(self.factory.model(p).log_probs(batch_BT)))(params)
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
                best = min(best, (self.score(params, self.truth.val), params, epoch), key=lambda one: one[0])
                if epoch >= best[2] + 2:
                    break
        return (params, PUBLISHED) if published else best[1:]

    def tuned(self, row: str, seed: int, params: dict) -> tuple[dict, dict]:
        """(the generator after a row's rounds from `params`, what was noticed: the last metrics, and a collapse)."""
        config = options(row, self.config, self.gan)
        adversarial.check(config, BATCH)
        writing = FixedLength(BATCH, LENGTH)
        both = {G: params, D: self.judges.fresh(jax.random.key(1000 + seed))}
        key = jax.random.key_data(jax.random.key(2000 + seed))
        state = TrainState(jnp.int32(0), both, adversarial.optimizers(config, writing).init(both), {}, key)
        steps, rounds, watch = config.d_steps + config.g_steps, config.d_warmup + self.config.rounds, Collapse({})
        one = adversarial.make_round(self.factory, self.judges, writing, config, rounds)

        @partial(jax.jit, static_argnums=1)
        def some(state: TrainState, count: int):
            def body(state, key):
                return one(state, {"texts": self.truth.train[jax.random.randint(key, (steps, BATCH), 0, len(self.truth.train))]})

            state, found = jax.lax.scan(body, state, jax.random.split(jax.random.fold_in(jax.random.key(3000 + seed), state.step), count))
            return state, jax.tree.map(jnp.nanmean, found)

        found = {}
        while int(state.step) < rounds:
            count = min(CHECKED, rounds - int(state.step))
            state, found = some(state, count)
            if text := watch.note(int(state.step), float(found["distinct_2"]), count):
                return state.params[G], {"note": text, "metrics": _plain(found)}
        return state.params[G], {"metrics": _plain(found)}

    def measured(self, params: dict, seed: int, temperature: float = 1.0) -> dict[str, float]:
        """`nll_oracle`, `nll_test`, `nll_div` and `j` (nats per token) of a generator that is sampled at a temperature.

        nll_div is that of the distribution sampled from: at a temperature T the model's logits are divided by T.
        """
        at_T = params | {name: params[name] / temperature for name in ("output", "b_vocab")}
        texts = self.write(params, jax.random.key(4000 + seed), len(self.truth.test), temperature)
        found = {"nll_oracle": self.score_oracle(self.truth.params, texts), "nll_test": self.score(at_T, self.truth.test)}
        found["nll_div"] = self.score(at_T, texts)
        if odd := next((name for name, value in found.items() if not np.isfinite(value)), ""):
            raise UserError(f"A generator of seed {seed} diverged: its {odd} is {found[odd]}; lower the learning rates, or leave its row out.")
        return found | {"j": found["nll_oracle"] - found["nll_div"] + found["nll_test"] - self.truth.entropy}


@dataclasses.dataclass(frozen=True)
class FixedLength:
    """How an LSTM writes `rows` texts of `length` tokens, for nothing in particular (`rgjax.train.adversarial.Writing`)."""

    rows: int
    length: int

    def blank(self, rows: int) -> tuple[Texts, dict]:
        return self._whole(jnp.zeros((rows, self.length), jnp.int32)), {}

    def real(self, batch: dict) -> tuple[Texts, dict]:
        return self._whole(batch["texts"]), {}

    def read(self, given: dict) -> None:
        return None

    def sample(self, model: LSTM, key: jax.Array, given: dict) -> Texts:
        return self._whole(recurrent.sample(model, key, self.rows, self.length))

    def relaxed(self, model: LSTM, key: jax.Array, given: dict, heat: jax.Array) -> tuple[jax.Array, jax.Array]:
        return recurrent.relaxed(model, key, self.rows, self.length, heat), jnp.ones((self.rows, self.length), jnp.int32)

    def completions(self, model: LSTM, key: jax.Array, given: dict, texts: Texts, times: int, every: int) -> Texts:
        return self._whole(recurrent.completions(model, key, texts.tokens, times)[every - 1 :: every])

    def log_probs(self, model: LSTM, given: dict, texts: Texts) -> jax.Array:
        return model.log_probs(texts.tokens)

    def _whole(self, tokens: jax.Array) -> Texts:
        return Texts(tokens, jnp.ones(tokens.shape, jnp.int32))


def _plain(found: dict) -> dict[str, float]:
    return {name: float(value) for name, value in found.items()}



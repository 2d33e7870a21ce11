"""The oracle benchmark of text GANs (Yu et al. 2017, arXiv:1609.05473): texts of an LSTM with random weights are learned by another."""

from __future__ import annotations

import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import AdversarialConfig, BenchConfig, DiscriminatorConfig, OracleConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.tasks.text_gans import learning
from rgjax.tasks.text_gans.learning import MEASURED, Learned, at, finite, scorer, writer

LENGTH, ORACLE_KEY, GENERATOR = 20, 20, LSTMConfig()  # LENGTH: tokens of a text
PARTS = {
    "tokens": ("embedding",), "w_in": ("Wi", "Wf", "Wo_gate", "Wc"), "w_hidden": ("Ui", "Uf", "Uo_gate", "Uc"),
    "b_in": ("bi", "bf", "bo_gate", "bc"), "output": ("W_out",), "b_vocab": ("b_out",),
}  # fmt: skip


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
    write, score = writer(factory, LENGTH), scorer(factory)
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


class Bench(learning.Bench):
    """A generator of the oracle's size, measured by the oracle and on fresh texts of it."""

    def __init__(self, config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, truth: Truth):
        super().__init__(config, gan, judge, Learned(truth.train, truth.val, truth.factory.vocab_size), GENERATOR)
        self.truth, self.score_oracle = truth, scorer(truth.factory)

    def measured(self, params: dict, seed: int, temperature: float = 1.0) -> dict[str, float]:
        """`nll_oracle`, `nll_test`, `nll_div` and `j` (nats per token) of a generator that is sampled at a temperature.

        nll_div is that of the distribution sampled from. Raises UserError where the generator diverged.
        """
        at_T = at(params, temperature)
        texts = self.write(params, jax.random.key(4000 + seed), len(self.truth.test), temperature)
        found = {"nll_oracle": self.score_oracle(self.truth.params, texts), "nll_test": self.score(at_T, self.truth.test)}
        found = finite(found | {"nll_div": self.score(at_T, texts)}, seed)
        return found | {"j": found["nll_oracle"] - found["nll_div"] + found["nll_test"] - self.truth.entropy}

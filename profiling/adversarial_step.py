"""A round of adversarial training, by REINFORCE or Gumbel-softmax, beside a loop in torch of the shape that SeqGAN's ports have.

    python -m profiling.adversarial_step                     (the oracle benchmark's sizes; 1 generator step, 5 discriminator steps)
    python -m profiling.adversarial_step --completions=4 --d_steps=1
    python -m profiling.adversarial_step --estimator=gumbel

Sides: rgjax.train.adversarial, a round in one compiled call, where all completions of all beginnings are drawn together; and torch, which for
each completion and each beginning reads the beginning in one call of its LSTM, draws token after token, and asks the discriminator. By Gumbel-softmax
both feed each relaxed token to the next step. Both have the same sizes, losses and optimizers and begin with the same weights, by which log
probabilities and verdicts must agree before anything is timed (what is drawn differs). Needs torch.
"""

from __future__ import annotations

import numpy as np

from launch import app
from profiling import bench
from rgjax.config import AdversarialConfig, DiscriminatorConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("texts", 64, "Texts of a step.", lower_bound=2)
flags.DEFINE_integer("length", 20, "Tokens of a text.", lower_bound=2)
flags.DEFINE_integer("vocab_size", 5000, "Tokens of the vocabulary.", lower_bound=2)
flags.DEFINE_integer("hidden", 32, "Width of the LSTM and its token vectors.", lower_bound=1)


# What the torch side has one form of.
ALIKE = {"gan_loss": "bce", "reward": "discriminator", "d_warmup": 0, "old_samples": 0, "heat_schedule": "constant", "nll_weight": 0.0}
ALIKE |= {"completions_every": 1, "discriminator": "cnn", "d_spectral": False, "d_norm": False, "d_codes": False}


def sizes() -> tuple[AdversarialConfig, DiscriminatorConfig]:
    """Both sides' options: what the flags say; raises UserError for what the torch side has not."""
    from rgjax.train import adversarial

    gan, judge = app.read(AdversarialConfig), app.read(DiscriminatorConfig)
    if odd := next((name for name, value in ALIKE.items() if getattr(app.FLAGS, name) != value), None):
        raise UserError(f"--{odd}={getattr(app.FLAGS, odd)} is not what the torch side does, which is {ALIKE[odd]}; leave it out.")
    if not gan.d_steps or (gan.estimator == "reinforce" and not gan.completions):
        raise UserError("What is timed are completions and steps of both sides; give --completions and --d_steps of at least 1.")
    adversarial.check(gan, app.FLAGS.texts, app.FLAGS.length)
    return gan, judge


class Ours:
    """The compiled round and its state."""

    def __init__(self, gan: AdversarialConfig, judge: DiscriminatorConfig, real_SBT: np.ndarray):
        import jax
        import jax.numpy as jnp

        from rgjax.models import discriminator
        from rgjax.models.build import ModelFactory
        from rgjax.models.lstm import LSTM, LSTMConfig
        from rgjax.tasks.text_gans.unconditional import FixedLength
        from rgjax.train import adversarial
        from rgjax.train.state import TrainState

        f, writing = app.FLAGS, FixedLength(app.FLAGS.texts, app.FLAGS.length)
        self.writer = ModelFactory(LSTMConfig(f.hidden, f.hidden), f.vocab_size, LSTM)
        self.judge = ModelFactory(judge, f.vocab_size, discriminator.build)
        params = {adversarial.G: self.writer.fresh(jax.random.key(0)), adversarial.D: self.judge.fresh(jax.random.key(1))}
        opt_state = adversarial.optimizers(gan, writing).init(params)
        self.state = TrainState(jnp.int32(0), params, opt_state, {}, jax.random.key_data(jax.random.key(2)))
        self.params, self.real = jax.tree.map(np.asarray, params), {"texts": jnp.asarray(real_SBT)}
        self.run = jax.jit(adversarial.make_round(self.writer, self.judge, writing, gan, 1), donate_argnums=0)

    def told(self, texts_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log probabilities [B, T], verdicts [B]) by the initial weights."""
        writer, judge = self.writer.model(self.params["generator"]), self.judge.model(self.params["discriminator"])
        return np.asarray(writer.log_probs(texts_BT)), np.asarray(judge(texts_BT, np.ones_like(texts_BT)))

    def __call__(self):
        self.state, metrics = self.run(self.state, self.real)
        return self.state, metrics


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need("torch")
    bench.same_precision()
    from profiling.peer_adversarial import Theirs

    gan, judge = sizes()
    f, rng = app.FLAGS, np.random.default_rng(0)
    real_SBT = rng.integers(0, f.vocab_size, (gan.d_steps + gan.g_steps, f.texts, f.length)).astype(np.int32)
    ours = Ours(gan, judge, real_SBT)
    theirs = Theirs(gan, judge, ours.params, real_SBT)
    for what, mine, other in zip(("log probabilities", "verdicts"), ours.told(real_SBT[0]), theirs.told(real_SBT[0]), strict=True):
        if np.abs(mine - other).max() > 1e-3 * np.abs(mine).max():
            raise UserError(f"The sides do not compute the same: their {what} differ; no times are told.")
    found = bench.take_turns({"ours": ours, "peer": theirs}, f.rounds)
    print(bench.table(found, 1, "rounds"))
    shape = {name: getattr(f, name) for name in ("texts", "length", "vocab_size", "hidden")}
    shape |= {"estimator": gan.estimator} | ({"completions": gan.completions} if gan.estimator == "reinforce" else {})
    shape |= {"d_steps": gan.d_steps, "g_steps": gan.g_steps, "windows": judge.d_windows, "filters": judge.d_filters}
    return bench.summary(found, "peer", shape=shape)


if __name__ == "__main__":
    app.define(AdversarialConfig, DiscriminatorConfig)
    for name, value in (ALIKE | {"estimator": "reinforce", "completions": 16}).items():
        app.FLAGS.set_default(name, value)
    app.run(main, __doc__)

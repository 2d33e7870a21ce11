"""Adversarial training: a round trains the discriminator a few steps, then the generator; two optimizers, one pure step.

The state is that of any run: `params` and `opt_state` hold one entry for each side, "generator" and "discriminator", and `opt_state`
also the `old` texts, where any are kept.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from rgjax.config import AdversarialConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.train import gan_loss, reinforce
from rgjax.train.state import TrainState
from rgjax.train.variety import variety

G, D = "generator", "discriminator"
MISCODED = 3  # folded into a step's key: what it is split into are 0 to 2


class Texts(NamedTuple):
    """B texts of at most T tokens: ids int32 [B, T], and 1 at each of their tokens, the end token included, 0 beyond."""

    tokens: jax.Array
    mask: jax.Array


class Old(NamedTuple):
    """Texts of earlier rounds with what they were written for, N of each; `written` counts all that ever came."""

    texts: Texts
    given: dict
    written: jax.Array


class Writing(Protocol):
    """How a generator writes. `given` is what it writes for, a dict of arrays with B rows; the texts are of the model's own distribution."""

    length: int  # T

    def blank(self, rows: int) -> tuple[Texts, dict]:
        """Zeros in the place of `rows` texts, and of what they are written for."""

    def real(self, batch: dict) -> tuple[Texts, dict]:
        """The real texts of a batch, and what they were written for."""

    def read(self, given: dict) -> Texts | None:
        """What a discriminator reads of `given` beside a text, with a weight for each token in place of 1; None where there is nothing."""

    def miscoded(self, given: dict, key: jax.Array) -> tuple[dict, jax.Array] | None:
        """(`given` with the control codes of another row, whether these are others, bool [B]); None where a discriminator minds none."""

    def sample(self, model, key: jax.Array, given: dict) -> Texts:
        """Texts drawn from the model."""

    def relaxed(self, model, key: jax.Array, given: dict, heat: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(straight-through one-hot rows float32 [B, T, V] of drawn texts, their mask)."""

    def completions(self, model, key: jax.Array, given: dict, texts: Texts, times: int, every: int) -> Texts:
        """[(T - 1) // every, times, B, T]: entry [k, n, b] keeps the first every * (k + 1) tokens of text b and draws the others anew."""

    def log_probs(self, model, given: dict, texts: Texts) -> jax.Array:
        """log p(token | those before, given), float32 [B, T]; anything beyond a text."""


def check(config: AdversarialConfig, rows: int, length: int) -> None:
    """Raises UserError for options that contradict each other; `rows` are the texts of a step, of at most `length` tokens."""
    if config.estimator == "none":
        raise UserError("--estimator is none; give gumbel or reinforce.")
    if config.estimator == "gumbel" and config.reward != "discriminator":
        raise UserError(f"--reward={config.reward} is for --estimator=reinforce; gumbel has no reward.")
    if not config.d_steps and config.reward == "discriminator":
        raise UserError("--d_steps=0 never trains the discriminator that is asked; raise it, or give --reward=constant or random.")
    if config.estimator == "reinforce" and config.reward == "constant" and config.baseline == "batch":
        raise UserError("--baseline=batch takes all of a constant reward off; give --baseline=none.")
    if config.d_warmup and not config.d_steps:
        raise UserError(f"--d_warmup={config.d_warmup} trains the discriminator first, and --d_steps=0 never does; give --d_warmup=0.")
    if config.estimator == "reinforce" and config.completions and config.completions_every >= length:
        raise UserError(f"--completions_every={config.completions_every} completes nothing of texts of {length} tokens; lower it.")
    if config.old_samples % rows:
        raise UserError(f"--old_samples={config.old_samples} is no multiple of the {rows} texts of a step; change it.")


def optimizers(config: AdversarialConfig, writing: Writing) -> optax.GradientTransformation:
    """Makes the optimizer state of both sides, with room for old texts; `make_round` updates it."""
    tx_g, tx_d = _sides(config)

    def init(params: dict) -> dict:
        old = {"old": Old(*writing.blank(config.old_samples), jnp.int32(0))} if config.old_samples else {}
        return {G: tx_g.init({G: params[G]}), D: tx_d.init({D: params[D]}), **old}

    def update(*_):
        raise NotImplementedError("two optimizers take turns; make_round updates each")

    return optax.GradientTransformation(init, update)


def _sides(config: AdversarialConfig) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    return optax.chain(optax.clip_by_global_norm(config.g_clip), optax.adam(config.g_learning_rate)), optax.adam(config.d_learning_rate)


def heat(config: AdversarialConfig, done: jax.Array) -> jax.Array:
    """The Gumbel-softmax's temperature after a share `done` of the rounds."""
    done = jnp.clip(done, 0.0, 1.0)
    if config.heat_schedule == "constant":
        return jnp.float32(config.heat)
    if config.heat_schedule == "linear":
        return config.heat + (config.heat_end - config.heat) * done
    return config.heat * (config.heat_end / config.heat) ** done


def make_round(generator: ModelFactory, discriminator: ModelFactory, writing: Writing, config: AdversarialConfig, rounds: int):
    """`round(state, batch) -> (state, metrics)`: `d_steps` steps of the discriminator, then `g_steps` of the generator.

    Leaves of `batch` are [d_steps + g_steps, B, ...], one slice a step, as `writing.real` takes it. In the first `d_warmup` of the `rounds` the
    generator rests, and what is told of it is NaN; `loss` is always the real texts' negative log-likelihood per token.
    """
    tx_g, tx_d = _sides(config)
    loss_d, loss_g = _discriminator_loss(discriminator, writing, config), _generator_loss(generator, discriminator, writing, config)
    steps = config.d_steps + config.g_steps

    def one_d(state: TrainState, batch_and_key):
        (real, given), keys = writing.real(batch_and_key[0]), jax.random.split(batch_and_key[1], 3)
        fresh = (writing.sample(generator.model(state.params[G]), keys[0], given), given)
        written = _mixed(state.opt_state.get("old"), fresh, keys[1])
        grads, found = jax.grad(loss_d, has_aux=True)(state.params[D], (real, given), written, keys[2])
        return _stepped(state, D, tx_d, grads), found | {"d_grad_norm": optax.global_norm(grads)}

    def one_g(state: TrainState, batch_and_key):
        (real, given), key = writing.real(batch_and_key[0]), batch_and_key[1]
        warm = heat(config, (state.step - config.d_warmup) / max(1, rounds - config.d_warmup))
        (_, found), grads = jax.value_and_grad(loss_g, has_aux=True)(state.params[G], state.params[D], real, given, key, warm)
        written = found.pop("written")
        return _keep(_stepped(state, G, tx_g, grads), written, given), found | {"grad_norm": optax.global_norm(grads)}

    def round(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        keys = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), steps)
        of_d, of_g = (jax.tree.map(lambda x, s=s: x[s], (batch, keys)) for s in (slice(config.d_steps), slice(config.d_steps, steps)))
        found = likelihood(generator.model(state.params[G]), writing, batch)
        if config.d_steps:
            state, told = jax.lax.scan(one_d, state, of_d)
            found |= told
        train = lambda s: jax.lax.scan(one_g, s, of_g)
        _, shapes = jax.eval_shape(train, state)
        nothing = {name: jnp.full(x.shape, 0.0 if name == "grad_norm" else jnp.nan, x.dtype) for name, x in shapes.items()}
        rest = lambda s: (s, nothing)
        state, told = jax.lax.cond(state.step >= config.d_warmup, train, rest, state) if config.d_warmup else train(state)
        return state._replace(step=state.step + 1), jax.tree.map(jnp.mean, found | told)

    return round


def likelihood(model, writing: Writing, batch: dict) -> dict[str, jax.Array]:
    """`loss` and `nll`, the negative log-likelihood per token (nats) of the last slice's real texts; all slices' tokens as `target_tokens`."""
    real, given = writing.real(jax.tree.map(lambda x: x[-1], batch))
    nll = -jnp.sum(writing.log_probs(model, given, real) * real.mask) / jnp.maximum(jnp.sum(real.mask), 1)
    return {"loss": nll, "nll": nll, "target_tokens": jnp.sum(jax.vmap(lambda b: writing.real(b)[0].mask)(batch), dtype=jnp.float32)}


def _stepped(state: TrainState, side: str, tx: optax.GradientTransformation, grads: dict) -> TrainState:
    updates, opt_state = tx.update({side: grads}, state.opt_state[side], {side: state.params[side]})
    params = optax.apply_updates({side: state.params[side]}, updates)
    return state._replace(params=state.params | params, opt_state=state.opt_state | {side: opt_state})


def _mixed(old: Old | None, fresh: tuple[Texts, dict], key: jax.Array) -> tuple[Texts, dict]:
    """The first half of the texts replaced by old ones, with what those were written for, once there are any (Shrivastava et al. 2017,
    arXiv:1612.07828, section 2.3)."""
    if old is None:
        return fresh
    size, b = len(old.texts.tokens), len(fresh[0].tokens)
    filled = jnp.minimum(old.written, size)
    chosen_B = jax.random.randint(key, (b,), 0, jnp.maximum(filled, 1))
    takes_B = (jnp.arange(b) < b // 2) & (filled > 0)
    one = lambda new, kept: jnp.where(takes_B.reshape(b, *(1,) * (new.ndim - 1)), kept[chosen_B], new)
    return jax.tree.map(one, fresh, (old.texts, old.given))


def _keep(state: TrainState, written: Texts, given: dict) -> TrainState:
    """With the texts of a step among the old ones, the oldest of which they replace."""
    old, rows = state.opt_state.get("old"), len(written.tokens)
    if old is None:
        return state
    at = old.written % len(old.texts.tokens)
    put = lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new, at, 0)
    old = Old(*jax.tree.map(put, (old.texts, old.given), (written, given)), old.written + rows)
    return state._replace(opt_state=state.opt_state | {"old": old})


def _discriminator_loss(discriminator: ModelFactory, writing: Writing, config: AdversarialConfig):
    losses = gan_loss.LOSSES[config.gan_loss]

    def loss(params: dict, real_given: tuple[Texts, dict], written_given: tuple[Texts, dict], key):
        model, keys, (real, written) = discriminator.model(params), jax.random.split(key, 3), (real_given[0], written_given[0])
        real_B = model(*real, writing.read(real_given[1]), keys[0])
        written_B = model(*written, writing.read(written_given[1]), keys[1])
        total = losses.discriminator(real_B, written_B)
        fresh_B = written_B[len(written_B) // 2 :] if config.old_samples else written_B
        found = {"d_loss": total, "d_told_apart": gan_loss.told_apart(real_B, fresh_B), "d_gap": jnp.mean(real_B) - jnp.mean(fresh_B)}
        if odd := writing.miscoded(real_given[1], jax.random.fold_in(key, MISCODED)):
            # A text that is right for other codes than it stands beside (the matching-aware discriminator: Reed et al. 2016, arXiv:1605.05396);
            # where nothing has codes, the written one again.
            odd_B = jnp.where(odd[1], model(*real, writing.read(odd[0]), keys[0]), written_B)
            total = (total + losses.discriminator(real_B, odd_B)) / 2
            found |= {"d_loss": total, "d_codes_told": jnp.sum((real_B > odd_B) & odd[1]) / jnp.maximum(jnp.sum(odd[1]), 1)}
        if config.gan_loss == "wasserstein":
            mask_BT = jnp.maximum(real.mask, written.mask)
            judge = lambda x_BTE: model.judge(x_BTE, mask_BT, writing.read(real_given[1]))
            found["d_penalty"] = gan_loss.gradient_penalty(judge, model.embed(*real), model.embed(*written), keys[2])
            total += config.gradient_penalty * found["d_penalty"]
        return total, found

    return loss


def _generator_loss(generator: ModelFactory, discriminator: ModelFactory, writing: Writing, config: AdversarialConfig):
    """(params, the discriminator's, real, given, key, heat) -> (loss, metrics with the texts as `written`)."""
    losses = gan_loss.LOSSES[config.gan_loss]

    def gumbel(model, judge, real: Texts, given, key, warm):
        rows_BTV, mask_BT = writing.relaxed(model, key, given, warm)
        return losses.generator(judge(*real), judge(rows_BTV, mask_BT)), Texts(jnp.argmax(rows_BTV, axis=-1).astype(jnp.int32), mask_BT), {}

    def reinforced(model, judge, real: Texts, given, key, warm):
        keys, fixed = jax.random.split(key, 3), jax.lax.stop_gradient(model)
        written = writing.sample(fixed, keys[0], given)
        rewards_BT = jnp.ones(written.tokens.shape)
        if config.reward == "random":
            rewards_BT = jax.random.uniform(keys[2], written.tokens.shape)
        elif config.reward == "discriminator":
            real_B = judge(*real)
            reward = lambda tokens_BT, mask_BT: losses.reward(judge(tokens_BT, mask_BT), real_B)
            times, every = config.completions, config.completions_every
            completed = writing.completions(fixed, keys[1], given, written, times, every) if times else None
            rewards_BT = reinforce.token_rewards(reward, written, completed, every)
        loss = reinforce.surrogate(writing.log_probs(model, given, written), rewards_BT, written.mask, config.baseline)
        return loss, written, {"reward": jnp.sum(rewards_BT * written.mask) / jnp.maximum(jnp.sum(written.mask), 1)}

    def loss(params: dict, d_params: dict, real: Texts, given: dict, key, warm):
        model, judged = generator.model(params), discriminator.model(d_params)
        judge = lambda text, mask_BT: judged(text, mask_BT, writing.read(given))
        total, written, found = (gumbel if config.estimator == "gumbel" else reinforced)(model, judge, real, given, key, warm)
        found |= {"g_loss": total, **variety(*written), "written": jax.lax.stop_gradient(written)}
        found["written_tokens"] = jnp.mean(jnp.sum(written.mask, axis=1, dtype=jnp.float32))
        if config.nll_weight:
            total += config.nll_weight * -jnp.sum(writing.log_probs(model, given, real) * real.mask) / jnp.maximum(jnp.sum(real.mask), 1)
        return total, found

    return loss

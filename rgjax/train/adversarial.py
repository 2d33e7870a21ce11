"""Adversarial training: a round trains the discriminator a few steps, then the generator; two optimizers, one pure step.

The state is that of any run: `params` and `opt_state` hold one entry for each side, "generator" and "discriminator", and `opt_state`
also the `old` texts that are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rgjax.config import AdversarialConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.train import gan_loss, reinforce
from rgjax.train.state import TrainState

G, D = "generator", "discriminator"


@dataclasses.dataclass(frozen=True)
class Writing:
    """How a generator writes B texts of T tokens.

    sample(model, key) -> int32 [B, T]; relaxed(model, key, heat) -> straight-through one-hots float32 [B, T, V];
    completions(model, key, tokens_BT, times) -> int32 [T - 1, times, B, T]; log_probs(model, tokens_BT) -> float32 [B, T].
    """

    rows: int
    length: int
    sample: Callable
    relaxed: Callable
    completions: Callable
    log_probs: Callable


def check(config: AdversarialConfig, rows: int) -> None:
    """Raises UserError for options that contradict each other."""
    if config.estimator == "gumbel" and config.reward != "discriminator":
        raise UserError(f"--reward={config.reward} is for --estimator=reinforce; gumbel has no reward.")
    if not config.d_steps and config.reward == "discriminator":
        raise UserError("--d_steps=0 never trains the discriminator that is asked; raise it, or give --reward=constant or random.")
    if config.estimator == "reinforce" and config.reward == "constant" and config.baseline == "batch":
        raise UserError("--baseline=batch takes all of a constant reward off; give --baseline=none.")
    if config.old_samples % rows:
        raise UserError(f"--old_samples={config.old_samples} is no multiple of the {rows} texts of a step; change it.")


def optimizers(config: AdversarialConfig, writing: Writing) -> optax.GradientTransformation:
    """Makes the optimizer state of both sides; `make_round` updates it."""
    tx_g, tx_d = _sides(config)

    def init(params: dict) -> dict:
        old_NT = jnp.zeros((config.old_samples, writing.length), jnp.int32)
        return {G: tx_g.init({G: params[G]}), D: tx_d.init({D: params[D]}), "old": old_NT}

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
    """`round(state, real_SBT) -> (state, metrics)`: `d_steps` steps of the discriminator, then `g_steps` of the generator, on the S = d_steps +
    g_steps batches of real texts. In the first `d_warmup` rounds the generator rests."""
    tx_g, tx_d = _sides(config)
    loss_d, loss_g = _discriminator_loss(generator, discriminator, writing, config), _generator_loss(generator, discriminator, writing, config)

    def one_d(state: TrainState, real_and_key):
        real_BT, key = real_and_key
        keys = jax.random.split(key, 3)
        written_BT = _mixed(state, writing.sample(generator.model(state.params[G]), keys[0]), keys[1])
        grads, found = jax.grad(loss_d, has_aux=True)(state.params[D], real_BT, written_BT, keys[2])
        return _stepped(state, D, tx_d, grads), found

    def one_g(state: TrainState, real_and_key):
        warm = heat(config, (state.step - config.d_warmup) / max(1, rounds))
        (_, found), grads = jax.value_and_grad(loss_g, has_aux=True)(state.params[G], state.params[D], *real_and_key, warm)
        written_BT = found.pop("written")
        return _keep(_stepped(state, G, tx_g, grads), written_BT), found | {"g_norm": optax.global_norm(grads)}

    def round(state: TrainState, real_SBT: jax.Array) -> tuple[TrainState, dict]:
        keys = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), len(real_SBT))
        found = {}
        if config.d_steps:
            state, found = jax.lax.scan(one_d, state, (real_SBT[: config.d_steps], keys[: config.d_steps]))
        rest = (real_SBT[config.d_steps :], keys[config.d_steps :])
        _, shapes = jax.eval_shape(lambda s: jax.lax.scan(one_g, s, rest), state)
        nothing = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        train = lambda s: jax.lax.scan(one_g, s, rest)
        state, of_g = jax.lax.cond(state.step >= config.d_warmup, train, lambda s: (s, nothing), state)
        metrics = jax.tree.map(jnp.mean, found | of_g)
        return state._replace(step=state.step + 1), metrics

    return round


def _stepped(state: TrainState, side: str, tx: optax.GradientTransformation, grads: dict) -> TrainState:
    updates, opt_state = tx.update({side: grads}, state.opt_state[side], {side: state.params[side]})
    params = optax.apply_updates({side: state.params[side]}, updates)
    return state._replace(params=state.params | params, opt_state=state.opt_state | {side: opt_state})


def _mixed(state: TrainState, written_BT: jax.Array, key: jax.Array) -> jax.Array:
    """Half of the texts replaced by old ones, once there are any (Shrivastava et al. 2017, arXiv:1612.07828, section 2.3)."""
    old_NT, b = state.opt_state["old"], len(written_BT)
    if not len(old_NT):
        return written_BT
    filled = jnp.sum(jnp.any(old_NT > 0, axis=1))  # from the front
    chosen_BT = old_NT[jax.random.randint(key, (b,), 0, jnp.maximum(filled, 1))]
    return jnp.where(((jnp.arange(b) < b // 2) & (filled > 0))[:, None], chosen_BT, written_BT)


def _keep(state: TrainState, written_BT: jax.Array) -> TrainState:
    old_NT = state.opt_state["old"]
    if not len(old_NT):
        return state
    old_NT = jax.lax.dynamic_update_slice(old_NT, written_BT, (state.step * len(written_BT) % len(old_NT), 0))
    return state._replace(opt_state=state.opt_state | {"old": old_NT})


def _discriminator_loss(generator, discriminator, writing: Writing, config: AdversarialConfig):
    losses = gan_loss.LOSSES[config.gan_loss]

    def loss(params: dict, real_BT, written_BT, key):
        model, keys = discriminator.model(params), jax.random.split(key, 3)
        real_B, written_B = model(real_BT, key=keys[0]), model(written_BT, key=keys[1])
        total = losses.discriminator(real_B, written_B)
        found = {"d_loss": total, "d_told_apart": gan_loss.told_apart(real_B, written_B), "d_gap": jnp.mean(real_B) - jnp.mean(written_B)}
        if config.gan_loss == "wasserstein":
            mask_BT = jnp.ones(real_BT.shape, jnp.int32)
            judge = lambda x_BTE: model.judge(x_BTE, mask_BT)
            found["d_penalty"] = gan_loss.gradient_penalty(judge, model.embed(real_BT), model.embed(written_BT), keys[2])
            total += config.gradient_penalty * found["d_penalty"]
        return total, found

    return loss


def _generator_loss(generator, discriminator, writing: Writing, config: AdversarialConfig):
    """(params, the discriminator's, real_BT, key, heat) -> (loss, metrics with the texts as `written`)."""
    losses = gan_loss.LOSSES[config.gan_loss]

    def gumbel(model, judge, real_BT, key, warm):
        written_BTV = writing.relaxed(model, key, warm)
        return losses.generator(judge(real_BT), judge(written_BTV)), jnp.argmax(written_BTV, axis=-1), {}

    def reinforced(model, judge, real_BT, key, warm):
        keys = jax.random.split(key, 3)
        fixed = jax.lax.stop_gradient(model)
        written_BT = writing.sample(fixed, keys[0])
        if config.reward == "discriminator":
            real_B = judge(real_BT)
            completed = writing.completions(fixed, keys[1], written_BT, config.completions)
            rewards_BT = reinforce.token_rewards(lambda texts: losses.reward(judge(texts), real_B), written_BT, completed)
        else:
            rewards_BT = jnp.ones(written_BT.shape) if config.reward == "constant" else jax.random.uniform(keys[2], written_BT.shape)
        log_probs_BT, mask_BT = writing.log_probs(model, written_BT), jnp.ones(written_BT.shape)
        return reinforce.surrogate(log_probs_BT, rewards_BT, mask_BT, config.baseline), written_BT, {"reward": jnp.mean(rewards_BT)}

    def loss(params: dict, d_params: dict, real_BT, key, warm):
        model, judge = generator.model(params), discriminator.model(d_params)
        adversary = gumbel if config.estimator == "gumbel" else reinforced
        total, written_BT, found = adversary(model, judge, real_BT, key, warm)
        found |= {"g_loss": total, "distinct_2": distinct_pairs(written_BT), "written": written_BT.astype(jnp.int32)}
        if config.nll_weight:
            found["nll"] = -jnp.mean(writing.log_probs(model, real_BT))
            total += config.nll_weight * found["nll"]
        return total, found

    return loss


def distinct_pairs(tokens_BT: jax.Array) -> jax.Array:
    """Distinct pairs of neighbouring tokens over all pairs, float32 (distinct-2: Li et al. 2016)."""
    first, second = tokens_BT[:, :-1].reshape(-1), tokens_BT[:, 1:].reshape(-1)
    order = jnp.lexsort((second, first))
    first, second = first[order], second[order]
    new = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return (1 + jnp.sum(new)) / len(first)

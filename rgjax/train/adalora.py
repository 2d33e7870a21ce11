"""AdaLoRA's budget (Zhang et al. 2023, arXiv:2303.10512): singular values that matter least become zero, on a cubic schedule."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.errors import UserError


class AllocationState(NamedTuple):
    """`sensitivity` and `uncertainty` are the running averages of |p g| and of its deviation, of each entry of a, b and e."""

    inner: optax.OptState
    count: jax.Array  # int32: steps taken
    sensitivity: dict
    uncertainty: dict


def allocating(inner: optax.GradientTransformation, config: AdapterConfig, steps: int) -> optax.GradientTransformation:
    """`inner`, after which the least important triplets lose their singular value; equations 8 to 12 of the paper, in PEFT's order.

    Raises UserError when the stages do not fit into the steps.
    """
    first, last = config.budget_start or steps // 10, config.budget_end or steps * 3 // 10
    if first + last >= steps:
        raise UserError(f"--budget_start={first} and --budget_end={last} leave none of --steps={steps} for pruning; lower them.")
    decay = config.importance_decay

    def init(params: dict) -> AllocationState:
        triplets = jax.tree.map(jnp.zeros_like, {"adapter": params["adapter"]})  # under their own paths, by which they are spread over devices
        return AllocationState(inner.init(params), jnp.zeros((), jnp.int32), triplets, jax.tree.map(jnp.copy, triplets))

    def update(grads, state: AllocationState, params):
        updates, inner_state = inner.update(grads, state.inner, params)
        step = state.count + 1
        learning = step < steps - last
        only = lambda tree: {"adapter": tree["adapter"]}
        found = jax.tree.map(lambda p, u, g: jnp.abs((p + u) * g), only(params), only(updates), only(grads))
        mean = lambda old, new: jnp.where(learning, decay * old + (1 - decay) * new, old)
        sensitivity = jax.tree.map(mean, state.sensitivity, found)
        uncertainty = jax.tree.map(mean, state.uncertainty, jax.tree.map(lambda i, s: jnp.abs(i - s), found, sensitivity))
        scores = importance(jax.tree.map(jnp.multiply, sensitivity, uncertainty)["adapter"])
        total = sum(s.size for s in scores.values())
        budget, due = schedule(step, total, total * config.rank // config.initial_rank, (first, last, steps), config.budget_every)
        ordered = jnp.sort(jnp.concatenate([s.reshape(-1) for s in scores.values()]))
        threshold = jnp.where(due & (budget < total), ordered[jnp.maximum(total - budget, 1) - 1], -1.0)
        prune = dict(trees.flat(updates))
        for path, score in scores.items():
            name = f"adapter.{path}.e"
            prune[name] = jnp.where(score <= threshold, -trees.at(params, name), prune[name])
        return trees.nested(prune.items()), AllocationState(inner_state, step, sensitivity, uncertainty)

    return optax.GradientTransformation(init, update)


def schedule(step: jax.Array, total: int, target: int, stages: tuple[int, int, int], every: int) -> tuple[jax.Array, jax.Array]:
    """(ranks left to all matrices together, whether they are allocated at this step); `stages` are first, last and all steps."""
    first, last, steps = stages
    left = 1 - (step - first) / (steps - last - first)
    falling = ((total - target) * left**3 + target).astype(jnp.int32)
    ending = step > steps - last
    budget = jnp.where(step <= first, total, jnp.where(ending, target, falling))
    return budget, ending | ((step > first) & (step % every == 0))


def importance(entries: dict) -> dict[str, jax.Array]:
    """Score [L, R] of each triplet, by the path of its matrix: that of its singular value plus the means of its row and column."""
    flat = dict(trees.flat(entries))
    paths = [path.removesuffix(".e") for path in flat if path.endswith(".e")]
    return {p: flat[f"{p}.e"] + jnp.mean(flat[f"{p}.a"], axis=1) + jnp.mean(flat[f"{p}.b"], axis=2) for p in paths}


def orthogonality(config: AdapterConfig):
    """A penalty (trained, fixed) -> float32: weight times the mean of |A^T A - I| and |B B^T - I| (Frobenius) over matrices and layers."""

    def penalty(trained: dict, fixed: dict) -> jax.Array:
        sums, count = jnp.float32(0.0), 0
        for path, x in trees.flat(trained["adapter"]):
            if path.endswith((".a", ".b")):
                gram = jnp.einsum("lir,lis->lrs", x, x) if path.endswith(".a") else jnp.einsum("lro,lso->lrs", x, x)
                away = jnp.sum(jnp.square(gram - jnp.eye(gram.shape[-1])), axis=(1, 2))
                sums, count = sums + jnp.sum(jnp.sqrt(away + 1e-12)), count + len(x)
        return config.orthogonal * sums / count

    return penalty

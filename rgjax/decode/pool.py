"""Continuous batching: inputs take the place of those that are done, so that a batch of ragged texts stays full (Yu et al. 2022, Orca)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rgjax.decode import prompt
from rgjax.decode.rules import RowRules
from rgjax.decode.sampling import Rows, Sampler


class Pool(NamedTuple):
    """B inputs under way. All rows write at one place of their caches at each step, whenever they began: the caches are rings."""

    at: jax.Array  # int32: steps taken
    filled: prompt.Prefilled  # of the inputs, padded to one length
    rows: Rows
    caches: list


def empty(model, sampler: Sampler, inputs: int, copies: int, rules: RowRules, keys: jax.Array) -> Pool:
    """A pool of places for `inputs`, with `copies` rows each; `rules` and `keys` of any one row say what those look like."""
    r, n, spread = inputs * copies, sampler.config.max_new_tokens, lambda x: jnp.broadcast_to(x[:1], (inputs * copies, *x.shape[1:]))
    caches, zeros = prompt.empty_caches(model, r, n), jnp.zeros(r, jnp.int32)
    prefixes = [type(c)(*(x[: r // copies, :, :0] for x in c)) for c in caches]
    filled = prompt.Prefilled(prefixes, jnp.zeros((inputs, 0), bool), jnp.zeros(inputs, jnp.int32), jnp.zeros(0), None, None)
    rules, done = jax.tree.map(spread, rules), jnp.ones(r, bool)
    begun = sampler.rules.begun(rules)
    rows = Rows(jnp.full((r, n), -1), zeros, zeros, done, zeros, zeros.astype(jnp.float32), rules, spread(keys), begun)
    return Pool(jnp.int32(0), filled, rows, caches)


def put(model, sampler: Sampler, pool: Pool, tokens_MS, lengths_M, rules: RowRules, keys_R: jax.Array, where_M: jax.Array) -> Pool:
    """The pool with M further inputs at the places `where_M`; it may hold none with a longer prompt than S."""
    new = prompt.prefill(model, tokens_MS, lengths_M)
    rows = sampler.begin(new, rules, keys_R)
    copies = len(keys_R) // len(where_M)
    where_R = (where_M[:, None] * copies + jnp.arange(copies)).reshape(-1)
    wider, old = tokens_MS.shape[1] - pool.filled.valid.shape[1], pool.filled
    old = old._replace(
        prefixes=jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (wider, 0), (0, 0))), old.prefixes),
        valid=jnp.pad(old.valid, ((0, 0), (wider, 0))),
    )  # fmt: skip
    filled = old._replace(
        prefixes=_placed(old.prefixes, new.prefixes, where_M),
        valid=old.valid.at[where_M].set(new.valid), start=old.start.at[where_M].set(new.start),
    )  # fmt: skip
    return pool._replace(filled=filled, rows=jax.tree.map(lambda x, y: x.at[where_R].set(y), pool.rows, rows))


def _placed(old, new, where_M):
    """Large arrays with `new` ones in some of their rows, slice by slice: XLA's scatter goes number by number on a CPU."""

    def body(m, old):
        one = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, jax.lax.dynamic_slice_in_dim(y, m, 1), where_M[m], 0)
        return jax.tree.map(one, old, new)

    return jax.lax.fori_loop(0, len(where_M), body, old)


def run(model, sampler: Sampler, pool: Pool, wanted: jax.Array) -> tuple[Pool, jax.Array]:
    """Writes until at least `wanted` inputs are done with all their rows; returns which are, bool [B]."""
    b, n = len(pool.filled.start), pool.rows.tokens.shape[1]
    done_B = lambda rows: jnp.all(rows.done.reshape(b, -1), axis=1)

    def body(carry):  # without the prompts, which XLA would copy at each step
        at, rows, caches = carry
        return at + 1, *sampler.step(model, pool.filled, rows, caches, at % n)

    at, rows, caches = jax.lax.while_loop(lambda c: jnp.sum(done_B(c[1])) < wanted, body, (pool.at, pool.rows, pool.caches))
    return pool._replace(at=at, rows=rows, caches=caches), done_B(rows)

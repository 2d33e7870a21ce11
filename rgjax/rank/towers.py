"""The arrays and functions of the two towers: what each gives, the logit, and the loss of a drawn batch."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

HIDE = 0.3  # share of the candidates, and of the profiles, that training hides


class Weights(NamedTuple):
    """Float32. Of the user tower: vectors of items and of features as what was taken, of profile values, the weight of each of the last L
    events by dimension, a hidden layer and a bias. Of the item tower: vectors of items and of features. Then theta and omega."""

    history_ID: jax.Array
    history_FD: jax.Array
    profile_GD: jax.Array
    recency_LD: jax.Array
    up_DH: jax.Array
    down_HD: jax.Array
    bias_D: jax.Array
    items_ID: jax.Array
    items_FD: jax.Array
    theta_D: jax.Array
    omega_K: jax.Array


class Rows(NamedTuple):
    """A sparse matrix [N, F] as T entries a row: `columns_NT` int32 and `values_NT` float32, 0 where there are fewer."""

    columns_NT: jax.Array
    values_NT: jax.Array


class Shop(NamedTuple):
    """What training reads: `said` of the items and the `kind_F` of each column, `profiles` of the users; events of E in order by user: `item_E`,
    `user_E`, and `start_E` the number of the user's first; `known_M` the items that somebody took."""

    said: Rows
    kind_F: jax.Array
    profiles: Rows
    item_E: jax.Array
    user_E: jax.Array
    start_E: jax.Array
    known_M: jax.Array


class Read(NamedTuple):
    """What the user tower reads of B users: the last items of their histories, latest first, which of the places are filled and which of the
    items known, the mean of the items' features, and the profile's values."""

    item_BL: jax.Array
    there_BL: jax.Array
    known_BL: jax.Array
    taste_BF: jax.Array
    profile_BG: jax.Array


def dense(rows: Rows, numbers, width: int) -> jax.Array:
    """float32 [B, width] of row numbers [B]."""
    at = jnp.arange(len(numbers))[:, None]
    return jnp.zeros((len(numbers), width)).at[at, rows.columns_NT[numbers]].add(rows.values_NT[numbers])


def taste(said: Rows, item_BL, there_BL, width: int) -> jax.Array:
    """float32 [B, width]: the mean of the features of what was taken; zeros for nothing."""
    share_BL = there_BL / jnp.maximum(there_BL.sum(axis=1, keepdims=True), 1)
    at = jnp.arange(len(item_BL))[:, None, None]
    return jnp.zeros((len(item_BL), width)).at[at, said.columns_NT[item_BL]].add(said.values_NT[item_BL] * share_BL[..., None])


def user_tower(w: Weights, read: Read) -> jax.Array:
    """float32 [B, D]: events weighted by recency, for each dimension apart, plus taste and profile, and a hidden layer on it."""
    filled_BL1 = read.there_BL[..., None]
    share_BLD = jax.nn.softmax(jnp.where(filled_BL1, w.recency_LD, -1e9), axis=1) * (filled_BL1 & read.known_BL[..., None])
    seen_BD = jnp.sum(share_BLD * w.history_ID[read.item_BL], axis=1) + read.taste_BF @ w.history_FD + read.profile_BG @ w.profile_GD
    return seen_BD + jax.nn.gelu(seen_BD @ w.up_DH) @ w.down_HD + w.bias_D


def item_tower(w: Weights, item_N, said_NF, known_N) -> jax.Array:
    """float32 [N, D]: by what is said of items, and by a vector of their own where they are known."""
    return said_NF @ w.items_FD + w.items_ID[item_N] * known_N[:, None]


def weighted(w: Weights, taste_BF, kind_F) -> jax.Array:
    """float32 [B, F]: tastes times the omega of each column's kind; times an item's features it is omega' g(y)."""
    return taste_BF * w.omega_K[kind_F]


def drawn(key: jax.Array, shop: Shop, batch: int, negatives: int, window: int, features: int, profile_values: int):
    """(what the user tower reads, the items taken next [B], other items [M], which of those are no candidates [B, M]).

    Events are drawn uniformly, each with up to `window` before it as the history. Others are drawn from the known items uniformly; for a
    user the item taken and those of the history are no candidates: they would not be recommended.
    """
    event_key, other_key, profile_key = jax.random.split(key, 3)
    event_B = jax.random.randint(event_key, (batch,), 0, len(shop.item_E))
    place_BL = event_B[:, None] - 1 - jnp.arange(window)
    there_BL = place_BL >= shop.start_E[event_B][:, None]
    item_BL = jnp.where(there_BL, shop.item_E[jnp.maximum(place_BL, 0)], 0)
    told_B = jax.random.bernoulli(profile_key, 1 - HIDE, (batch,))
    profile_BG = dense(shop.profiles, shop.user_E[event_B], profile_values) * told_B[:, None]
    read = Read(item_BL, there_BL, there_BL, taste(shop.said, item_BL, there_BL, features), profile_BG)
    good_B = shop.item_E[event_B]
    bad_M = shop.known_M[jax.random.randint(other_key, (negatives,), 0, len(shop.known_M))]
    had_BM = jnp.any((item_BL[:, None] == bad_M[:, None]) & there_BL[:, None], axis=2)
    return read, good_B, bad_M, had_BM | (good_B[:, None] == bad_M)


def batch_loss(w: Weights, shop: Shop, key: jax.Array, batch: int, negatives: int, penalty: float):
    """(sampled softmax loss plus penalty / 2 times the squares of theta and omega and the mean squares of what the towers give, loss alone).

    Softmax of the item taken among it and the others, whose scores are raised by the log of how many items each stands for. Some candidates are
    hidden, as if nobody had them yet, so that what is said of them has to do alone (DropoutNet: Volkovs et al. 2017).
    """
    draw_key, hide_key = jax.random.split(key)
    features = len(shop.kind_F)
    read, good_B, bad_M, no_BM = drawn(draw_key, shop, batch, negatives, len(w.recency_LD), features, len(w.profile_GD))
    known = jax.random.bernoulli(hide_key, 1 - HIDE, (batch + negatives,)).astype(jnp.float32)
    good_BF, bad_MF = dense(shop.said, good_B, features), dense(shop.said, bad_M, features)
    good_BD, bad_MD = item_tower(w, good_B, good_BF, known[:batch]), item_tower(w, bad_M, bad_MF, known[batch:])
    user_BD, taste_BF = user_tower(w, read), weighted(w, read.taste_BF, shop.kind_F)
    own_B = jnp.sum(user_BD * w.theta_D * good_BD, axis=1) + jnp.sum(taste_BF * good_BF, axis=1)
    other_BM = (user_BD * w.theta_D) @ bad_MD.T + taste_BF @ bad_MF.T + jnp.log((len(shop.known_M) - 1) / negatives)
    total_B = jnp.logaddexp(own_B, jax.nn.logsumexp(jnp.where(no_BM, -1e9, other_BM), axis=1))
    told = jnp.mean(total_B - own_B)
    squares = jnp.sum(w.theta_D**2) + jnp.sum(w.omega_K**2)
    squares += sum(jnp.mean(jnp.sum(out**2, axis=1)) for out in (user_BD, good_BD, bad_MD))
    return told + 0.5 * penalty * squares, told

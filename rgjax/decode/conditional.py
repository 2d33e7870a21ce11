"""Writing with a transformer as training by what was written needs it: inside one compiled step, from the model's own distribution, without
any of the rules of `Writer`; and the same texts read at once for their log probabilities, or relaxed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.decode import prompt
from rgjax.decode.drawing import drawn


def split(batch: dict[str, jax.Array], prompt_length: int, length: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(prompts [B, S], their lengths [B], texts [B, T], their mask) of decoder-only rows with one example each, as pipelines make them.

    Prompts are padded on the left, with 0, texts on the right. Rows without an example have a mask of zeros.
    """
    first_B, total_B = jnp.argmax(batch["weights"] > 0, axis=1), jnp.sum(batch["weights"] > 0, axis=1)
    lengths_B = jnp.where(total_B > 0, first_B + 1, 0)  # the token at which the text's first is predicted ends the prompt
    take = lambda x_BN, at_BM, there_BM: jnp.where(there_BM, jnp.take_along_axis(x_BN, jnp.clip(at_BM, 0, x_BN.shape[1] - 1), axis=1), 0)
    at_BS = jnp.arange(prompt_length)[None] - (prompt_length - lengths_B[:, None])
    mask_BT = jnp.arange(length)[None] < total_B[:, None]
    texts_BT = take(batch["targets"], first_B[:, None] + jnp.arange(length)[None], mask_BT)
    return take(batch["tokens"], at_BS, at_BS >= 0), lengths_B, texts_BT, mask_BT.astype(jnp.int32)


def sample(
    model, key: jax.Array, prompts_BS: jax.Array, lengths_B: jax.Array, length: int, ends: tuple[int, ...], times: int = 1
) -> tuple[jax.Array, jax.Array]:
    """(texts int32 [B * times, length], mask): drawn token by token until one of the end tokens, which belongs to the text; 0 beyond.

    A prompt's texts follow each other, and share what was computed of it.
    """
    begun_RT = jnp.zeros((len(prompts_BS) * times, length), jnp.int32)
    return _go_on(model, key, prompt.prefill(model, prompts_BS, lengths_B), begun_RT, jnp.int32(0), ends)


def completions(
    model, key: jax.Array, prompts_BS: jax.Array, lengths_B: jax.Array, texts_BT: jax.Array, times: int, every: int, ends: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """(texts int32 [K, times, B, T], masks), K = (T - 1) // every: entry [k, n, b] keeps the first every * (k + 1) tokens of text b, and draws
    the others anew; a text that ends among those is there as it is."""
    filled, (b, t) = prompt.prefill(model, prompts_BS, lengths_B), texts_BT.shape
    kept_K = every * (1 + jnp.arange((t - 1) // every))
    one = lambda key_and_kept: _go_on(model, key_and_kept[0], filled, prompt.repeat(texts_BT, times), key_and_kept[1], ends)
    found = jax.lax.map(one, (jax.random.split(key, len(kept_K)), kept_K))
    return jax.tree.map(lambda x_KRT: jnp.swapaxes(x_KRT.reshape(-1, b, times, t), 1, 2), found)


def _go_on(
    model, key: jax.Array, filled: prompt.Prefilled, begun_RT: jax.Array, kept: jax.Array, ends: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """(texts [R, T], mask) that keep the first `kept` tokens of `begun_RT`; R is a multiple of the prompts', a prompt's rows follow each other."""
    rows, length = begun_RT.shape
    logits_RV = prompt.repeat(filled.logits, rows // len(filled.start))
    weights = lambda logits_RV: jnp.exp(logits_RV - jnp.max(logits_RV, axis=-1, keepdims=True))

    def body(carry, i_and_uniform):
        logits_RV, caches, live_R = carry
        i, uniform_R = i_and_uniform
        token_R = jnp.where(i < kept, begun_RT[:, i], drawn(weights(logits_RV), uniform_R))
        token_R = jnp.where(live_R, token_R, 0)
        logits_RV, caches = prompt.advance(model, filled, caches, token_R, i)
        return (logits_RV, caches, live_R & ~jnp.isin(token_R, jnp.array(ends))), (token_R, live_R)

    begin = (logits_RV, prompt.empty_caches(model, rows, length), jnp.ones(rows, bool))
    steps = (jnp.arange(length), jax.random.uniform(key, (length, rows)))
    tokens_TR, live_TR = jax.lax.scan(body, begin, steps)[1]
    return tokens_TR.T, live_TR.T.astype(jnp.int32)


def hidden(model, prompts_BS: jax.Array, lengths_B: jax.Array, texts_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Hidden states [B, T, D] that each token of the texts was predicted from, all at once."""
    s = prompts_BS.shape[1]
    present_BN = jnp.concatenate([jnp.arange(s)[None] >= s - lengths_B[:, None], mask_BT > 0], axis=1).astype(jnp.int32)
    batch = {"tokens": jnp.concatenate([prompts_BS, texts_BT], axis=1), "segment_ids": present_BN}
    batch["positions"] = jnp.maximum(jnp.cumsum(present_BN, axis=1) - 1, 0)
    return model(batch)[:, s - 1 : -1]


def logits(model, prompts_BS: jax.Array, lengths_B: jax.Array, texts_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Float32 [B, T, V]: what each token of the texts was predicted by."""
    return prompt.score(model, hidden(model, prompts_BS, lengths_B, texts_BT, mask_BT))


def relaxed(logits_BTV: jax.Array, texts_BT: jax.Array, key: jax.Array, heat: jax.Array | float) -> jax.Array:
    """One-hot rows float32 [B, T, V] of texts that were drawn from `logits_BTV`, whose gradient is that of softmax((logits + noise) / heat).

    Straight-through Gumbel-softmax (Jang et al. 2017, arXiv:1611.01144) after the draw: the noise is Gumbel noise given that the tokens drawn
    are where it puts the maximum (Maddison et al. 2014, arXiv:1411.0030, section 3). What the text's later tokens are predicted by counts as given:
    a transformer reads all of them at once, so no gradient goes through what was fed.
    """
    log_p_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
    chosen_BTV = jax.nn.one_hot(texts_BT, logits_BTV.shape[-1])
    keys, tiny = jax.random.split(key), jnp.finfo(jnp.float32).tiny
    top_BT1 = jax.random.gumbel(keys[0], (*texts_BT.shape, 1))  # the maximum of log p + noise is a Gumbel variable at log 1
    uniform_BTV = jax.random.uniform(keys[1], logits_BTV.shape, minval=tiny)
    held_BTV = jax.lax.stop_gradient(log_p_BTV)
    below_BTV = -jnp.log(jnp.exp(-top_BT1) - jnp.log(uniform_BTV) * jnp.exp(-held_BTV))  # Gumbel at log p, cut off at the maximum
    noisy_BTV = log_p_BTV + jax.lax.stop_gradient(jnp.where(chosen_BTV > 0, top_BT1, below_BTV) - held_BTV)
    soft_BTV = jax.nn.softmax(noisy_BTV / heat, axis=-1)
    return jax.lax.stop_gradient(chosen_BTV - soft_BTV) + soft_BTV

"""Discriminators: a real number for a text, high where it looks real. They read token ids, or rows of weights over the vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import DiscriminatorConfig, ModelConfig
from rgjax.errors import UserError
from rgjax.models.transformer import Stack
from rgjax.nn import param, spectral
from rgjax.nn.dropout import dropout
from rgjax.nn.linear import linear
from rgjax.nn.norms import Norm
from rgjax.nn.segments import MASKED


class Discriminator(nnx.Module):
    """Token vectors and the last matrix, which both kinds share."""

    def __init__(self, config: DiscriminatorConfig, vocab_size: int, key: jax.Array, features: int):
        self.config, keys = config, jax.random.split(key, 2)
        self.tokens = param.normal(keys[0], (vocab_size, config.d_width), ("vocab", "embed"), config.d_width**-0.5)
        self.w_verdict = param.fan_in(keys[1], (features, 1), ("embed", None), features)

    def embed(self, text: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Vectors [B, T, E] of ids int32 [B, T], or of weights over the vocabulary [B, T, V]; 0 where there is no token."""
        x_BTE = self.tokens[...][text] if text.ndim == 2 else linear(text, self.tokens[...])
        return x_BTE * mask_BT[..., None]

    def matrix(self, w: jax.Array) -> jax.Array:
        """A matrix as it is used: divided by its largest singular value where asked for."""
        return spectral.normalised(w) if self.config.d_spectral else w

    def verdict(self, features_BF: jax.Array) -> jax.Array:
        """Float32 [B]."""
        return linear(features_BF, self.matrix(self.w_verdict[...]))[:, 0]

    def __call__(self, text: jax.Array, mask_BT: jax.Array, read=None, key: jax.Array | None = None) -> jax.Array:
        """Float32 [B] for texts as `embed` takes them. `read`, ids int32 and weights [B, S], is what they were written for (a weight of 0 is no
        token; others count only in means); `key` drops out."""
        return self.judge(self.embed(text, mask_BT), mask_BT, read, key)


def _mean(x_BTE: jax.Array, weights_BT: jax.Array) -> jax.Array:
    """The mean vector [B, E] of the tokens, by their weights, which are 0 where there is none and at least 1 elsewhere."""
    weights_BT1 = weights_BT[..., None].astype(jnp.float32)
    return (x_BTE * weights_BT1).sum(1) / jnp.maximum(weights_BT1.sum(1), 1.0)


class ConvDiscriminator(Discriminator):
    """Windows of several widths, each filter's maximum over the text, a highway layer (Kim 2014; Yu et al. 2017, arXiv:1609.05473).

    What a text was written for is read as a bag of tokens, whose product with the features is added to the verdict (the projection
    discriminator: Miyato & Koyama 2018, arXiv:1802.05637).
    """

    def __init__(self, config: DiscriminatorConfig, vocab_size: int, key: jax.Array):
        self.widths, keys = windows(config.d_windows), iter(jax.random.split(key, 64))
        features, f = config.d_filters * len(self.widths), config.d_filters
        super().__init__(config, vocab_size, next(keys), features)
        make = lambda n: param.fan_in(next(keys), (n * config.d_width, f), (None, None), n * config.d_width)
        self.filters = nnx.Dict({f"of_{n}": make(n) for n in self.widths})
        self.b_in = param.constant(0.0, (len(self.widths), f), (None, None))
        self.norm = Norm(features, "layernorm", 1e-5) if config.d_norm else None
        self.w_read = param.fan_in(next(keys), (config.d_width, features), (None, None), config.d_width * features)
        gate = lambda: param.fan_in(next(keys), (features, features), (None, None), features)
        self.w_gate, self.w_new = (gate(), gate()) if config.d_highway else (None, None)
        self.b_out = param.constant(-2.0, (features,), (None,)) if config.d_highway else None  # gates begin nearly shut (Srivastava et al. 2015)

    def judge(self, x_BTE: jax.Array, mask_BT: jax.Array, read=None, key: jax.Array | None = None) -> jax.Array:
        """As calling it, of token vectors."""
        found = [self._strongest(x_BTE, mask_BT, n, self.b_in[i]) for i, n in enumerate(self.widths)]
        x_BF = jnp.concatenate(found, axis=-1)
        if self.norm is not None:
            x_BF = self.norm(x_BF)
        if self.w_gate is not None:
            gate_BF = jax.nn.sigmoid(linear(x_BF, self.matrix(self.w_gate[...])) + self.b_out[...])
            x_BF = gate_BF * jax.nn.relu(linear(x_BF, self.matrix(self.w_new[...]))) + (1 - gate_BF) * x_BF
        x_BF = dropout(x_BF, self.config.d_dropout, key)
        if read is None:
            return self.verdict(x_BF)
        read_BE = _mean(self.embed(read[0], read[1] > 0), read[1])
        return self.verdict(x_BF) + jnp.sum(linear(read_BE, self.matrix(self.w_read[...])) * x_BF, axis=-1)

    def _strongest(self, x_BTE, mask_BT, n: int, bias_F) -> jax.Array:
        """Each filter's maximum [B, F] over the windows of n tokens; a text shorter than that is one window."""
        x_BTE = jnp.pad(x_BTE, ((0, 0), (0, max(0, n - x_BTE.shape[1])), (0, 0)))
        places = x_BTE.shape[1] - n + 1
        # One product of whole windows: in a compiled loop, XLA's gradient of a convolution takes fourteen times as long on a CPU.
        windows_BPW = jnp.concatenate([x_BTE[:, i : i + places] for i in range(n)], axis=-1)
        found_BPF = linear(windows_BPW, self.matrix(self.filters[f"of_{n}"][...]))
        whole_BP = jnp.arange(places)[None] <= jnp.maximum(mask_BT.sum(1) - n, 0)[:, None]
        return jnp.max(jax.nn.relu(found_BPF + bias_F) * whole_BP[..., None], axis=1)


class TransformerDiscriminator(Discriminator):
    """Every token reads every other, and before them what the text was written for; the mean of the text's last states is judged."""

    def __init__(self, config: DiscriminatorConfig, vocab_size: int, key: jax.Array):
        keys = jax.random.split(key, 2)
        super().__init__(config, vocab_size, keys[0], config.d_width)
        inner = ModelConfig(
            architecture="encoder", width=config.d_width, heads=config.d_heads, layers=config.d_layers, dropout=config.d_dropout, attention="plain"
        )
        self.encoder = Stack(inner, keys[1], config.d_layers, causal=False)

    def judge(self, x_BTE: jax.Array, mask_BT: jax.Array, read=None, key: jax.Array | None = None) -> jax.Array:
        """As calling it, of token vectors."""
        present_BN, x_BNE = mask_BT > 0, x_BTE
        if read is not None:
            there_BS = read[1] > 0
            present_BN, x_BNE = jnp.concatenate([there_BS, present_BN], axis=1), jnp.concatenate([self.embed(read[0], there_BS), x_BTE], axis=1)
        b, n, t = *present_BN.shape, mask_BT.shape[1]
        bias = jnp.broadcast_to(jnp.where(present_BN, 0.0, MASKED)[:, None, None], (b, 1, n, n))
        positions_BN = jnp.maximum(jnp.cumsum(present_BN, axis=1) - 1, 0)  # wherever padding stands
        return self.verdict(_mean(self.encoder(x_BNE, bias, positions_BN, key=key)[:, n - t :], mask_BT))


KINDS = {"cnn": ConvDiscriminator, "transformer": TransformerDiscriminator}


def build(config: DiscriminatorConfig, vocab_size: int, key: jax.Array) -> Discriminator:
    """The configured discriminator with fresh weights; raises UserError for options that do not fit each other."""
    if config.d_spectral and config.discriminator == "transformer":
        raise UserError("--d_spectral is for --discriminator=cnn; the transformer has norms in its place: leave one out.")
    if config.discriminator == "transformer" and config.d_width % (2 * config.d_heads):
        raise UserError(f"--d_width={config.d_width} is no multiple of twice --d_heads={config.d_heads}; change one.")
    return KINDS[config.discriminator](config, vocab_size, key)


def windows(text: str) -> list[int]:
    """--d_windows as numbers; raises UserError where it is no list of different widths of at least 1."""
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts) or len({int(p) for p in parts}) < len(parts):
        raise UserError(f"--d_windows={text} is no list of different widths; write them as 2,3,4,5.")
    return [int(p) for p in parts]

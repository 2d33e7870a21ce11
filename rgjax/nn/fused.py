"""Attention by cuDNN's fused kernel, told where packed segments begin and end: neither scores nor a mask are ever held."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.config import MOST_PACKED, ModelConfig
from rgjax.errors import UserError
from rgjax.nn import segments
from rgjax.nn.segments import Segments

SEVERAL = "over several devices cuDNN's was never run"


def devices() -> int:
    """How many a program that is being traced is for: those of the mesh (`parallel.sharding.on_mesh`), or else all that there are."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.device_count() if mesh.empty else mesh.size


def missing(config: ModelConfig) -> str:
    """Why cuDNN's kernel can't attend for this model here, in a clause; '' where it can."""
    width = config.head_dim or config.width // config.heads
    if odd := _needs_scores(config):
        return f"--{odd}={getattr(config, odd)} needs the scores themselves"
    if jax.default_backend() != "gpu":
        return "there is no GPU"
    if config.dtype != "bfloat16":
        return f"it computes in bfloat16 and --dtype={config.dtype}"
    if width % 8 or width > 256:
        return f"heads are {width} wide, and it takes multiples of 8 up to 256"
    device = jax.local_devices()[0]
    if not _at_least(getattr(device, "compute_capability", ""), 9.0):
        return f"packed rows need a Hopper GPU or a later one, and this is a {device.device_kind}"
    return ""


def _needs_scores(config: ModelConfig) -> str:
    return "block" if config.block != "transformer" else "positions" if config.positions == "relative" else ""


def _at_least(capability: object, least: float) -> bool:
    try:
        return float(capability) >= least
    except (TypeError, ValueError):  # of another maker
        return False


def check(config: ModelConfig, adapter: str = "none", devices: int = 1) -> None:
    """Raises UserError where the kernel that --attention names can't be had on so many devices, or where a GPU would do without it unasked, many
    times slower."""
    why = "--adapter=prefix adds keys that belong to no example" if adapter == "prefix" else missing(config)
    if config.attention == "cudnn" and why:
        raise UserError(f"--attention=cudnn can't be had: {why}; set --attention=plain, which computes the same without it.")
    if config.attention == "auto" and jax.default_backend() == "gpu" and config.dtype == "bfloat16" and not _needs_scores(config):
        insist = "" if why else ", or insist with --attention=cudnn"
        if why := why or (SEVERAL if devices > 1 else ""):
            raise UserError(f"--attention=auto finds no fused kernel here: {why}; set --attention=plain for dense scores, far slower{insist}.")


def attend_cudnn(q_BTHA: jax.Array, k_BSKA: jax.Array, v_BSKA: jax.Array, seen: Segments, scale: float) -> jax.Array:
    """softmax(q k^T * scale) v within segments, [B, T, H, A] in bfloat16.

    Rows hold as many segments as `seen` has lengths for, or MOST_PACKED where it has none; for more see `poisoned`. The kernel leaves what it
    does not compute as it finds it, forwards and backwards. Where a sequence reads itself, padding, one stretch too, therefore counts as a
    segment, which reads itself; across two sequences, of which one may have none, it is masked, and its output is zero.
    """
    from jax._src.cudnn import fused_attention_stablehlo as cudnn  # jax.nn.dot_product_attention takes no offsets, hence no packed rows

    itself = seen.queries_BT is seen.keys_BS
    bounds = lambda ids, lengths: _bounds(ids, segments.lengths(ids, _most(seen)) if lengths is None else lengths, itself)
    (q_lengths, q_starts), (k_lengths, k_starts) = bounds(seen.queries_BT, seen.query_lengths_BM), bounds(seen.keys_BS, seen.key_lengths_BM)
    there = (q_lengths > 0) & (k_lengths > 0)
    told = lambda x: jnp.where(there, x, -1)  # the kernel's mark of a segment that isn't there
    offsets = lambda x: jnp.pad(told(x), ((0, 0), (0, 1)), constant_values=-1)
    real = lambda x, ids: x if itself else jnp.where(ids[..., None, None] > 0, x, 0)
    out = cudnn.dot_product_attention(
        real(q_BTHA, seen.queries_BT), real(k_BSKA, seen.keys_BS), real(v_BSKA, seen.keys_BS),
        q_seqlen=told(q_lengths), kv_seqlen=told(k_lengths), q_offsets=offsets(q_starts), kv_offsets=offsets(k_starts), scale=scale,
        mask_type=cudnn.MaskType.PADDING_CAUSAL if seen.causal else cudnn.MaskType.PADDING, qkv_layout="BTNH",
    )  # fmt: skip
    return real(out, seen.queries_BT)


def poisoned(x_BTD: jax.Array, seen: Segments) -> jax.Array:
    """x, but NaN at segments after those that the kernel is told of, so that nobody trains on what it left there."""
    return jnp.where(seen.queries_BT[..., None] > _most(seen), jnp.nan, x_BTD)


def _most(seen: Segments) -> int:
    """How many segments of a row the kernel is told of."""
    if seen.query_lengths_BM is not None:
        return seen.query_lengths_BM.shape[1]
    return min(MOST_PACKED, max(seen.queries_BT.shape[1], seen.keys_BS.shape[1]))  # the batch does not tell


def _bounds(ids_BT: jax.Array, lengths_BM: jax.Array, padding: bool) -> tuple[jax.Array, jax.Array]:
    """(lengths, starts) of each row's segments and, if asked for, its `padding`; int32 [B, M + 1]: with 1 the kernel takes rows to be unpacked."""
    blank_BT = (ids_BT == 0) & padding
    also = lambda known_BM, last_B: jnp.concatenate([known_BM, last_B[:, None].astype(jnp.int32)], axis=1)
    return also(lengths_BM, blank_BT.sum(1)), also(segments.starts(ids_BT, lengths_BM.shape[1]), jnp.argmax(blank_BT, axis=1))

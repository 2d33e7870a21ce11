"""Numbers of the examples that are packed into rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def of_example(reduce, x_BT: jax.Array, segments_BT: jax.Array, places_BS: jax.Array | None = None) -> jax.Array:
    """What `reduce` (`jax.ops.segment_sum`, `segment_max`) makes of the numbers of one example in a row, at each of its tokens.

    `segments_BT`, int32, number the examples of a row from 1; 0 is padding, which counts as one more. With `places_BS`, which number the same
    examples elsewhere (a decoder's rows beside an encoder's), the results are found there: [B, S]; an example that is not in `segments_BT` gets
    what `reduce` makes of nothing.
    """
    places_BS = segments_BT if places_BS is None else places_BS
    most = max(segments_BT.shape[1], places_BS.shape[1]) + 1
    found_BM = jax.vmap(lambda x, ids: reduce(x, ids, most))(x_BT, segments_BT)
    return jnp.take_along_axis(found_BM, places_BS, axis=1)

"""How an LSTM writes texts for nothing in particular, while it is trained by what it writes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rgjax.decode import recurrent
from rgjax.models.lstm import LSTM, START
from rgjax.train.adversarial import Texts

END = START  # ends a text, and fills what is beyond: a text begins as if another had just ended


@dataclasses.dataclass(frozen=True)
class FixedLength:
    """How an LSTM writes `rows` texts of `length` tokens (`rgjax.train.adversarial.Writing`); where a text `ends`, at most that many."""

    rows: int
    length: int
    ends: bool = False

    def blank(self, rows: int) -> tuple[Texts, dict]:
        return Texts(*(jnp.zeros((rows, self.length), jnp.int32),) * 2), {}

    def real(self, batch: dict) -> tuple[Texts, dict]:
        return self.texts(batch["texts"]), {}

    def read(self, given: dict) -> None:
        return None

    def miscoded(self, given: dict, key: jax.Array) -> None:
        return None

    def sample(self, model: LSTM, key: jax.Array, given: dict) -> Texts:
        return self.texts(recurrent.sample(model, key, self.rows, self.length))

    def relaxed(self, model: LSTM, key: jax.Array, given: dict, heat: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows_BTV = recurrent.relaxed(model, key, self.rows, self.length, heat)
        mask_BT = self.texts(jnp.argmax(rows_BTV, axis=-1)).mask
        if self.ends:  # the mask has no gradient: without this one a generator can't learn where to end
            goes_on_BT = jnp.cumprod(1 - rows_BTV[:, :-1, END], axis=1)
            rows_BTV = rows_BTV.at[:, 1:].multiply(goes_on_BT[..., None])
        return rows_BTV, mask_BT

    def completions(self, model: LSTM, key: jax.Array, given: dict, texts: Texts, times: int, every: int) -> Texts:
        return self.texts(recurrent.completions(model, key, texts.tokens, times)[every - 1 :: every])

    def log_probs(self, model: LSTM, given: dict, texts: Texts) -> jax.Array:
        return model.log_probs(texts.tokens)

    def texts(self, tokens: jax.Array) -> Texts:
        """Token ids [..., T] with what is beyond each text's end blanked."""
        if not self.ends:
            return Texts(tokens, jnp.ones(tokens.shape, jnp.int32))
        end = (tokens == END).astype(jnp.int32)
        mask = (jnp.cumsum(end, axis=-1) == end).astype(jnp.int32)  # the end itself is the first
        return Texts(jnp.where(mask > 0, tokens, END), mask)

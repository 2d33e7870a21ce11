"""How a generator of reasons writes while it is trained by what it writes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rgjax.decode import conditional
from rgjax.tasks.reason import ReasonTask
from rgjax.train.adversarial import Texts


@dataclasses.dataclass(frozen=True)
class Reasons:
    """How a decoder-only generator writes reasons (`rgjax.train.adversarial.Writing`); `given` are prompts padded on the left, and their lengths."""

    prompt_length: int
    length: int
    ends: tuple[int, ...]

    @classmethod
    def of(cls, task: ReasonTask) -> Reasons:
        """For the prompts and lengths of a task."""
        return cls(task.input.length - task.input.target_length, task.input.target_length, tuple(task.template.ends))

    def blank(self, rows: int) -> tuple[Texts, dict]:
        texts_NT, lengths_N = jnp.zeros((rows, self.length), jnp.int32), jnp.zeros(rows, jnp.int32)
        return Texts(texts_NT, texts_NT), {"prompts_BS": jnp.zeros((rows, self.prompt_length), jnp.int32), "lengths_B": lengths_N}

    def real(self, batch: dict) -> tuple[Texts, dict]:
        prompts_BS, lengths_B, texts_BT, mask_BT = conditional.split(batch, self.prompt_length, self.length)
        return Texts(texts_BT, mask_BT), {"prompts_BS": prompts_BS, "lengths_B": lengths_B}

    def read(self, given: dict) -> Texts:
        there_BS = jnp.arange(self.prompt_length)[None] >= self.prompt_length - given["lengths_B"][:, None]
        return Texts(given["prompts_BS"], there_BS.astype(jnp.int32))

    def sample(self, model, key: jax.Array, given: dict, times: int = 1) -> Texts:
        return Texts(*conditional.sample(model, key, **given, length=self.length, ends=self.ends, times=times))

    def relaxed(self, model, key: jax.Array, given: dict, heat: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key)
        texts = self.sample(jax.lax.stop_gradient(model), keys[0], given)
        logits_BTV = conditional.logits(model, given["prompts_BS"], given["lengths_B"], *texts)
        rows_BTV = conditional.relaxed(logits_BTV, texts.tokens, keys[1], heat)
        # The mask has no gradient: without this one a generator could not learn where to end.
        goes_on_BT = jnp.cumprod(1 - jnp.sum(rows_BTV[:, :-1, jnp.array(self.ends)], axis=-1), axis=1)
        return rows_BTV.at[:, 1:].multiply(goes_on_BT[..., None]), texts.mask

    def completions(self, model, key: jax.Array, given: dict, texts: Texts, times: int, every: int) -> Texts:
        return Texts(*conditional.completions(model, key, **given, texts_BT=texts.tokens, times=times, every=every, ends=self.ends))

    def log_probs(self, model, given: dict, texts: Texts) -> jax.Array:
        return conditional.log_probs(model, given["prompts_BS"], given["lengths_B"], *texts)

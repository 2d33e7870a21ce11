"""How a generator of reasons writes while it is trained by what it writes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import DiscriminatorConfig
from rgjax.decode import conditional
from rgjax.tasks import codes
from rgjax.tasks.reason import ReasonTask
from rgjax.train.adversarial import Texts
from rgjax.train.loss import token_log_probs


def log_probs(model, prompts_BS: jax.Array, lengths_B: jax.Array, texts_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """log p(token | prompt and those before) of texts, float32 [B, T], nats; 0 beyond them. The logits are never held all at once."""
    hidden_BTD = conditional.hidden(model, prompts_BS, lengths_B, texts_BT, mask_BT)
    return token_log_probs(hidden_BTD, *model.head(), texts_BT, mask_BT)


@dataclasses.dataclass(frozen=True)
class Reasons:
    """How a decoder-only generator writes reasons (`rgjax.train.adversarial.Writing`); `given` are prompts padded on the left, and their lengths.

    Where a discriminator is to mind control codes, `code_V` tells for each token which code it is a value of, -1 for none.
    """

    prompt_length: int
    length: int
    ends: tuple[int, ...]
    code_V: np.ndarray | None = None

    @classmethod
    def of(cls, task: ReasonTask, code_V: np.ndarray | None = None) -> Reasons:
        """For the prompts and lengths of a task."""
        return cls(task.input.length - task.input.target_length, task.input.target_length, tuple(task.template.ends), code_V)

    @classmethod
    def judged(cls, task: ReasonTask, judge: DiscriminatorConfig, controls: dict[str, list[str]]) -> Reasons:
        """As `of`, to be judged by such a discriminator in a run of these control codes; raises UserError where it is to mind codes and there are
        none."""
        return cls.of(task, codes.swaps(task, controls, "--d_codes").code_V if judge.d_codes else None)

    def blank(self, rows: int) -> tuple[Texts, dict]:
        texts_NT, lengths_N = jnp.zeros((rows, self.length), jnp.int32), jnp.zeros(rows, jnp.int32)
        return Texts(texts_NT, texts_NT), {"prompts_BS": jnp.zeros((rows, self.prompt_length), jnp.int32), "lengths_B": lengths_N}

    def real(self, batch: dict) -> tuple[Texts, dict]:
        prompts_BS, lengths_B, texts_BT, mask_BT = conditional.split(batch, self.prompt_length, self.length)
        return Texts(texts_BT, mask_BT), {"prompts_BS": prompts_BS, "lengths_B": lengths_B}

    def read(self, given: dict) -> Texts:
        there_BS = self._there(given)
        if self.code_V is None:
            return Texts(given["prompts_BS"], there_BS.astype(jnp.int32))
        codes_BS = there_BS & (jnp.asarray(self.code_V)[given["prompts_BS"]] >= 0)
        others_B1, codes_B1 = (jnp.maximum(jnp.sum(x_BS, axis=1, keepdims=True), 1) for x_BS in (there_BS & ~codes_BS, codes_BS))
        return Texts(given["prompts_BS"], jnp.where(codes_BS, jnp.maximum(others_B1 / codes_B1, 1.0), there_BS))

    def miscoded(self, given: dict, key: jax.Array) -> tuple[dict, jax.Array] | None:
        if self.code_V is None or len(given["prompts_BS"]) < 2:
            return None
        prompts_BS, code_V, names = given["prompts_BS"], jnp.asarray(self.code_V), jnp.arange(self.code_V.max() + 1)
        code_BS = jnp.where(self._there(given), code_V[prompts_BS], -1)
        value_BG = jnp.max(jnp.where(code_BS[:, None] == names[:, None], prompts_BS[:, None], 0), axis=-1)
        # Values of another row, so that they are as frequent as the right ones: a judge can't tell them without the text.
        other_BG = jnp.roll(value_BG, jax.random.randint(key, (), 1, len(prompts_BS)), axis=0)
        other_BS = jnp.take_along_axis(jnp.where(other_BG > 0, other_BG, value_BG), jnp.maximum(code_BS, 0), axis=1)
        others_BS = jnp.where(code_BS >= 0, other_BS, prompts_BS)
        return given | {"prompts_BS": others_BS}, jnp.any(others_BS != prompts_BS, axis=1)

    def _there(self, given: dict) -> jax.Array:
        return jnp.arange(self.prompt_length)[None] >= self.prompt_length - given["lengths_B"][:, None]

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
        return log_probs(model, given["prompts_BS"], given["lengths_B"], *texts)

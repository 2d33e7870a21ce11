"""Next-token scores computed anew from whole, unpadded sequences: the truth that cached decoding must meet."""

import numpy as np
import tiny

LENGTH = 56


def next_logits(writer, prompt: list[int], out: list[int]) -> np.ndarray:
    """Float logits [V] after `out`, with -inf where the writer's tables forbid the token."""
    made, tree = writer.factory, writer.params
    if made.config.architecture == "causal":
        batch, at = tiny.row([prompt + out], LENGTH), len(prompt + out) - 1
    else:
        batch, at = tiny.row([[writer.tokenizer.pad_id, *out]], 16) | tiny.row([prompt], LENGTH, "encoder_"), len(out)
    tables = tree["embedding"]
    shrink = made.config.width**-0.5 if made.config.tied and made.config.positions == "relative" else 1.0
    head = tables["tokens"] if made.config.tied else tables["output"]
    logits = tiny.hidden(made, tree, batch)[0, at].astype(np.float64) * shrink @ np.asarray(head, np.float64).T
    return np.where(writer.rules.banned_V | (writer.rules.slot_of_V >= 0), -np.inf, logits)


def log_probabilities(writer, prompt, out) -> np.ndarray:
    logits = next_logits(writer, prompt, out)
    return logits - np.logaddexp.reduce(logits)

"""Options of how reasons are written."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option
from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """How reasons are written."""

    method: str = option(
        "greedy",
        "Decoding: greedy, sample, beam; or sample --candidates and keep the one most like the others ('mbr'), or the one that --rewards like best "
        "('best').",
        choices=("greedy", "sample", "beam", "mbr", "best"),
    )
    temperature: float = option(1.0, "Sampling temperature.", low=0.01)
    top_k: int = option(0, "Sample among the k likeliest tokens; 0 among all.", low=0)
    top_p: float = option(1.0, "Sample within this probability mass.", low=0.01, high=1.0)
    beams: int = option(4, "Beams (method beam).", low=1)
    length_penalty: float = option(1.0, "Beam scores are divided by length to this power.")
    candidates: int = option(16, "Candidates per input (methods mbr and best).", low=2)
    n_best: int = option(1, "Reasons returned per input (any method but greedy).", low=1)
    ground_weight: float = option(0.2, "mbr: weight, beside agreement, of naming a title of the history and of copied attribute values.", low=0.0)
    cite_once: bool = option(False, "A title of the history is named at most once in a reason.")
    no_repeat_ngram: int = option(0, "No token n-gram of this size appears twice; 0 allows it.", low=0)
    banned_words: str = option("", "Comma-separated words never written.")
    required_words: str = option(
        "", "Comma-separated words that stand in every reason, beside those of an input's own \"require\"; in any case, Latin ones as whole words."
    )
    min_length: int = option(0, "Least length of a reason, in --length_unit.", low=0)
    max_length: int = option(0, "Hard upper length of a reason, in --length_unit; 0 has none but --max_new_tokens.", low=0)
    plan_length: int = option(
        0, "Length of every reason, in --length_unit, give or take --plan_tolerance; 0 plans none. Sets --min_length and --max_length.", low=0
    )
    plan_tolerance: int = option(2, "How far a reason may be off --plan_length.", low=0)
    length_unit: str = option("tokens", "Unit of --min_length, --max_length and --plan_length.", choices=("tokens", "words", "characters"))
    max_new_tokens: int = option(128, "Most tokens decoded.", low=1)
    guidance: float = option(
        1.0,
        "How strongly control codes steer: each token's log-probability without them plus so many times what they add. 1 follows the model, "
        "more exaggerates, for twice the time. The model must have been trained with some --control_dropout.",
        low=0.0,
    )
    code_words: str = option(
        "", "Word lists of control codes, a JSON file as --derive_words takes it or 'builtin': words of the value that is asked for gain --code_pull "
        "nats until --code_mentions of them stand there, and words of the code's other values lose as much.",
    )  # fmt: skip
    code_pull: float = option(4.0, "How much --code_words pull, in nats.", low=0.0)
    code_mentions: int = option(1, "How many of the --code_words that are asked for are to stand in a reason.", low=1)
    decode_batch: int = option(64, "Rows decoded together.", low=1)
    decode_seed: int = option(0, "Seed of sampling.", low=0)


def planned(config: DecodeConfig) -> DecodeConfig:
    """With the lengths that --plan_length stands for; raises UserError where they are given too, or --max_new_tokens leaves no room."""
    n, off = config.plan_length, config.plan_tolerance
    if not n:
        return config
    if config.min_length or config.max_length:
        raise UserError(f"--plan_length={n} sets --min_length and --max_length, of which one is given; leave it or --plan_length out.")
    if config.length_unit == "tokens" and n + off > config.max_new_tokens:
        raise UserError(f"--plan_length={n} and its tolerance exceed --max_new_tokens={config.max_new_tokens}; raise that.")
    return dataclasses.replace(config, min_length=max(n - off, 1), max_length=n + off, plan_length=0)

"""The tokens of a run's control codes, for whatever exchanges them in what a model has read."""

from __future__ import annotations

from rgjax.data.tokenizer import control_token
from rgjax.errors import UserError
from rgjax.tasks.reason import ReasonTask
from rgjax.train.contrast import Swaps


def swaps(task: ReasonTask, controls: dict[str, list[str]], flag: str, weight: float = 1.0) -> Swaps:
    """The declared codes as tokens that can stand for each other; raises UserError, for the `flag` that asks for it, where the data or the prompt
    have none."""
    if task.input.prompt == "chat":
        raise UserError(f"{flag} exchanges the tokens of control codes, and --prompt=chat asks in words; leave one out.")
    if all(len(values) < 2 for values in controls.values()):
        raise UserError(f"{flag} needs a control code with two values, and {task.input.dataset} declares none; leave it out.")
    wanted = {name: [control_token(name, value) for value in values] for name, values in controls.items()}
    if strange := next((token for values in wanted.values() for token in values if task.tokenizer.id_of(token) is None), None):
        raise UserError(f"{flag} exchanges tokens, and {strange} is none; prepare the data without --tokenizer.")
    tokens = {name: [task.tokenizer.id_of(token) for token in values] for name, values in wanted.items()}
    return Swaps.of(tokens, task.factory.vocab_size, weight)

"""The reason task: what it refuses before anything is read or written."""

import pytest
import tiny

from rgjax.config import InputConfig
from rgjax.errors import UserError
from rgjax.tasks.reason import ReasonTask

SHORT = {"length": 96, "target_length": 32}


def test_loss_on_the_prompt_needs_a_decoder_only_model(tokenizer):
    config = InputConfig(**SHORT, loss_on="all")
    with pytest.raises(UserError, match="--loss_on=all needs --architecture=causal"):
        ReasonTask(tokenizer, config, tiny.config("t5"))
    ReasonTask(tokenizer, config, tiny.config("llama"))


def test_references_are_measured_alone_whatever_carries_loss(tokenizer, dataset):
    """The perplexity of references counts the tokens of reasons; the loss in training counts what is trained on."""
    task = ReasonTask(tokenizer, InputConfig(**SHORT, batch_size=4, loss_on="all"), tiny.config("llama"))
    weight = lambda **how: sum(int(batch["weights"].sum()) for batch in task.evaluation_data(dataset, "val", **how))
    filled = sum(int((batch["segment_ids"] > 0).sum()) for batch in task.evaluation_data(dataset, "val"))
    assert weight() == filled
    reasons = [task.template.render(e).target_ids for e in dataset.examples("val")]
    assert weight(loss_on="reason") == sum(map(len, reasons)) < weight()


def test_rdrop_needs_dropout(tokenizer):
    task = ReasonTask(tokenizer, InputConfig(**SHORT), tiny.config("llama"))
    with pytest.raises(UserError, match="--rdrop=2 .*--dropout is 0"):
        task.loss(0.0, 2.0)
    task.loss(0.0)
    ReasonTask(tokenizer, InputConfig(**SHORT), tiny.config("llama", dropout=0.1)).loss(0.0, 2.0)

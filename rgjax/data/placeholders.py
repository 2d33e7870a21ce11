"""Room for virtual tokens: every prompt begins with placeholders, whose embeddings a model with trained prompts replaces."""

from __future__ import annotations

import dataclasses

from rgjax.data.template import Rendered, Template


class WithPlaceholders:
    """A template, used as it is, whose prompts begin with `count` placeholders; it must leave them room."""

    def __init__(self, inner: Template, count: int):
        self.inner, self.count, self.tokenizer = inner, count, inner.tokenizer
        self.ends, self.written, self.shown, self.spoken = inner.ends, inner.written, inner.shown, inner.spoken

    def __reduce__(self):
        return WithPlaceholders, (self.inner, self.count)

    def render(self, example: dict, with_control: bool = True) -> Rendered:
        """As the template's."""
        rendered = self.inner.render(example, with_control)
        return dataclasses.replace(rendered, prompt_ids=[self.tokenizer.bos_id] * self.count + rendered.prompt_ids)

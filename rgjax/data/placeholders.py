"""Room for virtual tokens: every prompt begins with placeholders, whose embeddings a model with trained prompts replaces."""

from __future__ import annotations

import dataclasses

from rgjax.data.template import Rendered, Template
from rgjax.data.vectors import Vectors


class WithPlaceholders:
    """A template, used as it is, whose prompts begin with `count` placeholders; it must leave them room."""

    def __init__(self, inner: Template, count: int, vectors: Vectors | None = None):
        """`vectors` are looked up for the model to make the virtual tokens of."""
        self.inner, self.count, self.tokenizer, self.vectors = inner, count, inner.tokenizer, vectors
        self.ends, self.written, self.shown, self.spoken = inner.ends, inner.written, inner.shown, inner.spoken

    def __reduce__(self):
        return WithPlaceholders, (self.inner, self.count, self.vectors)

    def render(self, example: dict, with_control: bool = True) -> Rendered:
        """As the template's."""
        rendered = self.inner.render(example, with_control)
        vector = self.vectors and self.vectors.of(example)
        return dataclasses.replace(rendered, prompt_ids=[self.tokenizer.bos_id] * self.count + rendered.prompt_ids, vector=vector)

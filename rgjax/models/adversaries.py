"""Generator and discriminator as one set of parameters, which is what a run of adversarial training keeps."""

from __future__ import annotations

import jax
from flax import nnx

from rgjax.config import DiscriminatorConfig
from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory

SIDES = ("generator", "discriminator")


class Adversaries:
    """As ModelFactory, for parameters {"generator": ..., "discriminator": ...}; the model that they make is the generator."""

    def __init__(self, generator: ModelFactory, discriminator: ModelFactory):
        self.generator, self.discriminator = generator, discriminator
        self.config, self.vocab_size = generator.config, generator.vocab_size
        self.abstract = nnx.State({name: nnx.State(side.abstract).raw_mapping for name, side in zip(SIDES, (generator, discriminator), strict=True)})

    @classmethod
    def of(cls, generator: ModelFactory, config: DiscriminatorConfig) -> Adversaries:
        """With the configured discriminator; raises UserError where its options do not fit each other, or the generator is no decoder."""
        if generator.config.architecture != "causal":
            raise UserError(f"--task=adversarial needs --architecture=causal, and this generator is {generator.config.architecture}.")
        return cls(generator, ModelFactory(config, generator.vocab_size, discriminator.build))

    def model(self, params: dict):
        """The generator."""
        return self.generator.model(params["generator"])

    def fresh(self, key: jax.Array, given: dict | None = None) -> dict:
        """The generator's parameters `given`, or fresh ones, with a fresh discriminator."""
        keys = jax.random.split(key)
        return {"generator": self.generator.fresh(keys[0], given), "discriminator": self.discriminator.fresh(keys[1])}

    def count(self) -> int:
        """Number of parameters of both."""
        return self.generator.count() + self.discriminator.count()

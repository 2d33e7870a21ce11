"""A trained discriminator's verdicts on texts, for whoever is judged by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding
from rgjax.tasks.run import Run, fingerprint
from rgjax.tasks.writing import Reasons

ROWS = 64  # texts judged at once


@dataclasses.dataclass
class Verdicts:
    """Judges texts for examples by the discriminator of a run, as that run reads them."""

    run: Run

    def __post_init__(self):
        judge = ModelFactory(self.run.facts["discriminator"], self.run.task.factory.vocab_size, discriminator.build)
        writing = Reasons.judged(self.run.task, self.run.facts["discriminator"], self.run.controls)

        def likely(params: dict, batch: dict) -> jax.Array:
            texts, given = writing.real(batch)
            return jax.nn.sigmoid(judge.model(params)(*texts, writing.read(given)))

        self._likely = jax.jit(likely)

    @classmethod
    def open(cls, folder: str) -> Verdicts:
        """Of the last checkpoint of a run; raises UserError where none is named, or it has no discriminator."""
        if not folder:
            raise UserError("--rewards has discriminator and none is given; name a run of --task=adversarial with --discriminator_from.")
        run = Run.open(folder, "last")
        if not run.discriminator:
            raise UserError(f"--discriminator_from={folder} has no discriminator; give a run of --task=adversarial.")
        return cls(run)

    @property
    def fingerprint(self) -> str:
        """Changes with the discriminator's weights."""
        return fingerprint(self.run.discriminator)

    def __call__(self, examples: Sequence[dict], texts: Sequence[str]) -> list[float]:
        """How likely each text is a real one, by the sigmoid of its verdict."""
        judged, found = (e | {"reason": text} for e, text in zip(examples, texts, strict=True)), []
        for batch in self.run.task.one_a_row(judged, ROWS):
            found += jax.device_get(self._likely(self.run.discriminator, sharding.put(batch, self.run.mesh))).tolist()
        return found[: len(texts)]

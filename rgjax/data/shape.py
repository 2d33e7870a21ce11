"""How long the rows of a batch are: static, so that a step is compiled once, or once a length bucket."""

from __future__ import annotations

import dataclasses

from rgjax.config import MOST_PACKED, InputConfig
from rgjax.errors import UserError

FEWEST = 16  # tokens of an example, for the number of examples that a row may hold
SHORTEST = 48  # tokens of an example that comes with a vector, for the number of vectors that a row has room for


@dataclasses.dataclass(frozen=True)
class Shape:
    """Static row lengths of a batch."""

    length: int
    encoder_length: int  # 0 for decoder-only
    vectors: int = 0  # most examples in a row, where each comes with a vector; else 0
    examples: int = 1  # most examples in a row

    @classmethod
    def of(cls, config: InputConfig, architecture: str, alone: bool = False) -> Shape:
        """The row of several examples, or that of one `alone`; raises UserError on lengths that contradict each other."""
        if config.row_length and not config.packing:
            raise UserError(f"--row_length={config.row_length} is for packed rows; leave it out, or set --packing.")
        if config.row_examples and not config.packing:
            raise UserError(f"--row_examples={config.row_examples} is for packed rows; leave it out, or set --packing.")
        if 0 < config.row_length < config.length:
            raise UserError(f"--row_length={config.row_length} is below --length={config.length}; raise it, or give 0.")
        length = config.length if alone else config.row_length or config.length
        vectors = max(1, length // SHORTEST) if config.item_vectors or config.user_vectors else 0
        examples = 1 if alone or not config.packing else config.row_examples or min(MOST_PACKED, max(1, length // FEWEST))
        if architecture == "causal":
            return cls(length, 0, vectors, examples)
        if 0 < config.decoder_length < config.target_length:
            raise UserError(
                f"--decoder_length={config.decoder_length} is below --target_length={config.target_length}; raise it, or give 0."
            )
        return cls(config.target_length if alone else config.decoder_length or config.target_length, length, vectors, examples)

    def scaled(self, share: float) -> Shape:
        """For one example a row."""
        part = lambda length: int(length * share + 1e-6)  # 29 of 100 at 0.29, too
        return Shape(max(8, part(self.length)), part(self.encoder_length), min(self.vectors, 1))

"""Examples as training reads them: every token, and whether it carries loss."""

from __future__ import annotations

import dataclasses

from rgjax.config import InputConfig
from rgjax.data import pipeline
from rgjax.data.dataset import Dataset
from rgjax.data.template import Template
from rgjax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Piece:
    """A token's text (several tokens' where only together they are a character); `loss` says that the model learns to write it."""

    text: str
    ids: tuple[int, ...]
    loss: bool
    special: bool


@dataclasses.dataclass(frozen=True)
class Sample:
    """One example; `rows` are its sequences by name: 'row' of a decoder-only model, 'encoder' and 'decoder' of the other."""

    index: int
    rows: dict[str, list[Piece]]
    truncated: bool
    surfaces: dict[str, str]  # slot token -> what is put back in the finished text

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(piece.ids) for row in self.rows.values() for piece in row)

    @property
    def target_tokens(self) -> int:
        """Tokens that carry loss."""
        return sum(len(piece.ids) for row in self.rows.values() for piece in row if piece.loss)


def samples_of(dataset: Dataset, template: Template, config: InputConfig, architecture: str, split: str, count: int) -> list[Sample]:
    """`count` examples spread evenly over a split, control codes kept; raises UserError when the split is empty."""
    source = dataset.source(split) if count else ()
    every, found, pieces = max(1, len(source) // max(count, 1)), [], Pieces(template.tokenizer)
    for index in range(0, min(len(source), every * count), every):
        arrays, rendered = pipeline.as_fed(source[index], template, config, architecture), template.render(source[index])
        found.append(Sample(index, _rows(arrays, pieces), rendered.truncated, rendered.surfaces))
    return found


def _rows(arrays: dict, pieces: Pieces) -> dict[str, list[Piece]]:
    """The model reads `tokens` and is told `targets`, of which those with a weight carry loss."""
    whole = [int(arrays["tokens"][0]), *map(int, arrays["targets"])]
    row = pieces.of(whole, [False, *(bool(w) for w in arrays["weights"])])
    if "encoder_tokens" not in arrays:
        return {"row": row}
    return {"encoder": pieces.of([int(i) for i in arrays["encoder_tokens"]], [False] * len(arrays["encoder_tokens"])), "decoder": row}


class Pieces:
    """Cuts token ids into pieces that can be shown."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.specials = set(tokenizer.backend.get_added_tokens_decoder())  # what the vocabulary's own rules never make
        self.bytes = tokenizer.token_bytes() if type(tokenizer.backend.decoder).__name__ == "ByteLevel" else None

    def of(self, ids: list[int], loss: list[bool]) -> list[Piece]:
        """The pieces of a row, in order; a piece never holds tokens with and without loss."""
        found, held = [], []
        for i, weighted in zip(ids, loss, strict=True):
            if held and (weighted != held[0][1] or i in self.specials):
                found.append(self._piece(held))
                held = []
            held.append((i, weighted))
            if i in self.specials or self._whole([i for i, _ in held]):
                found.append(self._piece(held))
                held = []
        return found + ([self._piece(held)] if held else [])

    def _whole(self, ids: list[int]) -> bool:
        """Whether the bytes of these tokens are characters (always so where tokens are not bytes)."""
        if self.bytes is None:
            return True
        try:
            b"".join(self.bytes[i] for i in ids).decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def _piece(self, held: list[tuple[int, bool]]) -> Piece:
        ids = tuple(i for i, _ in held)
        special = ids[0] in self.specials
        if special or self.bytes is None:
            text = "".join(self.tokenizer.backend.id_to_token(i) or f"<{i}>" for i in ids)
        else:
            text = b"".join(self.bytes[i] for i in ids).decode("utf-8", "replace")
        return Piece(text, ids, held[0][1], special)

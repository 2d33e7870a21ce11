"""A benchmark of text GANs on real texts, as captions of images: they are split anew, and what is written is compared with unseen ones.

The published split of Image COCO differs in topic from training to test, so that generic phrases score above the texts they imitate.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from nltk.tokenize import NLTKWordTokenizer

from rgjax.config import AdversarialConfig, BenchConfig, CaptionsConfig, DiscriminatorConfig
from rgjax.errors import UserError
from rgjax.metrics import ngram_bleu
from rgjax.models.lstm import LSTMConfig
from rgjax.tasks.text_gans import learning
from rgjax.tasks.text_gans.learning import Learned, at, finite
from rgjax.tasks.text_gans.unconditional import END

HELD_OUT, LEAST = 1000, 200  # validation texts, and test texts as many; distinct texts there must be
UNKNOWN, FIRST = 1, 2  # the token of a word that training lacks; that of the first word
SPLIT_SEED = 0
Text = tuple[str, ...]
COMPARED = tuple(f"{name}_{order}" for name in ("bleu", "self_bleu") for order in ngram_bleu.ORDERS)


class Split(NamedTuple):
    """Texts, each its words: to learn from, to stop by (and to be written like), and to compare with."""

    train: list[Text]
    val: list[Text]
    test: list[Text]


def read(where: str) -> list[Text]:
    """The distinct texts of --captions in the order of their files, as NLTK's words of the lower-cased lines; raises UserError where there are
    none, or hardly any."""
    tokenize = NLTKWordTokenizer().tokenize
    found = dict.fromkeys(tuple(tokenize(line.lower())) for path in _files(where) for line in _lines(path, where))
    found.pop((), None)
    if len(found) < LEAST:
        raise UserError(f"--captions={where} holds {len(found)} different texts, one a line; give at least {LEAST}.")
    return list(found)


def _files(where: str) -> list[pathlib.Path]:
    if pathlib.Path(where).is_dir():
        paths = sorted(pathlib.Path(where).glob("*.txt"))
        if not paths:
            raise UserError(f"--captions={where} holds no .txt file; give a folder that does, or files.")
        return paths
    paths = [pathlib.Path(part.strip()) for part in where.split(",") if part.strip()]
    if odd := next((path for path in paths if not path.is_file()), None):
        raise UserError(f"--captions={where}: {odd} is no file; give a folder of .txt files, or a comma-separated list of files.")
    return paths


def _lines(path: pathlib.Path, where: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"--captions={where}: {path} is not UTF-8 text; convert it, or leave it out.") from None


def split(texts: Sequence[Text]) -> Split:
    """Shuffled by a fixed seed: `HELD_OUT` to stop by and as many to test on, or a tenth each where that is fewer; the rest to learn."""
    order, held = np.random.default_rng(SPLIT_SEED).permutation(len(texts)), min(HELD_OUT, len(texts) // 10)
    shuffled = [texts[i] for i in order]
    return Split(shuffled[2 * held :], shuffled[:held], shuffled[held : 2 * held])


def row_length(texts: Iterable[Text], most: int) -> int:
    """As many tokens as the longest text has with its end, but `most` at most."""
    return min(most, 1 + max(map(len, texts)))


class Words:
    """Words of the training texts as tokens, by their frequency."""

    def __init__(self, texts: Iterable[Text], most: int):
        """Texts become rows of `row_length` tokens."""
        texts = list(texts)
        counts = Counter(word for text in texts for word in text)
        self.words = ["", "<unknown>", *(word for word, _ in counts.most_common())]
        self.ids = {word: i for i, word in enumerate(self.words) if i >= FIRST}
        self.length = row_length(texts, most)

    def encode(self, texts: Sequence[Text]) -> np.ndarray:
        """Token ids int32 [N, T]: the words, then END to the row's end; what goes beyond the row is cut off."""
        rows_NT = np.full((len(texts), self.length), END, np.int32)
        for row, text in zip(rows_NT, texts, strict=True):
            ids = [self.ids.get(word, UNKNOWN) for word in text[: self.length]]
            row[: len(ids)] = ids
        return rows_NT

    def decode(self, rows_NT: np.ndarray) -> list[Text]:
        """The words before each row's END."""
        ends = [row.tolist().index(END) if END in row else len(row) for row in rows_NT]
        return [tuple(self.words[i] for i in row[:end]) for row, end in zip(rows_NT, ends, strict=True)]


def compared(texts: Sequence[Text], test: Sequence[Text]) -> dict[str, float]:
    """`COMPARED`: BLEU of texts against all test texts, and against each other (`rgjax.metrics.ngram_bleu`), in [0, 1]."""
    return dict(zip(COMPARED, [*ngram_bleu.bleu(texts, test).tolist(), *ngram_bleu.self_bleu(texts).tolist()], strict=True))


def distance(found: dict[str, float], real: dict[str, float]) -> float:
    """Euclidean distance between the eight numbers of `compared`."""
    return float(np.linalg.norm([found[name] - real[name] for name in COMPARED]))


class Bench(learning.Bench):
    """A generator of texts of any length, compared with real ones."""

    def __init__(self, config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, captions: CaptionsConfig, texts: Split):
        self.words = Words(texts.train, captions.caption_length)
        train, val, self.test_NT = (jnp.asarray(self.words.encode(part)) for part in texts)
        width = captions.caption_width
        super().__init__(config, gan, judge, Learned(train, val, len(self.words.words), ends=True), LSTMConfig(width, width))
        self.split, self.real = texts, compared(texts.val, texts.test)

    def counted(self, texts_NT: jax.Array) -> jax.Array:
        """Tokens up to the first END, but unknown words: no training text has any, so that what they cost would be chance."""
        return super().counted(texts_NT) * (texts_NT != UNKNOWN)

    def measured(self, params: dict, seed: int, temperature: float = 1.0) -> dict[str, float]:
        """`COMPARED` of as many texts as there are validation texts, their `distance` to those, and `nll_test` (nats per token) of the
        distribution they were drawn from; raises UserError where the generator diverged."""
        found = finite({"nll_test": self.score(at(params, temperature), self.test_NT)}, seed)
        written = self.write(params, jax.random.key(4000 + seed), len(self.split.val), temperature)
        found |= compared(self.words.decode(np.asarray(written)), self.split.test)
        return found | {"distance": distance(found, self.real)}

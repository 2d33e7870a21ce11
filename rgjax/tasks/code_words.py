"""Word lists for --code_words, learned from a dataset: by which words its references tell the values of a control code apart."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

import numpy as np

from rgjax.data import length_bands, slots
from rgjax.data.dataset import Dataset
from rgjax.data.derived import nameable
from rgjax.data.tokenizer import ITEM_SLOT, Tokenizer, history_slot
from rgjax.decode.code_words import spellings
from rgjax.errors import UserError
from rgjax.metrics import judge
from rgjax.metrics.log_odds import z_scores
from rgjax.tasks import judges
from rgjax.train.workdir import replace_text

MOST = 20  # words of a value
LEAST_Z = 2.58  # standard deviations; of words that tell nothing one in 200 gets there by chance, for each value


def write(dataset: Dataset, tokenizer: Tokenizer, path: str) -> dict[str, dict[str, list[str]]]:
    """Learns lists from the training split and writes them as JSON; codes whose names or values lists can't hold (a space, say) are left out.

    Raises UserError where the file exists, the reasons are a model's, or no code has words that tell its values apart.
    """
    file = pathlib.Path(path)
    if file.exists():
        raise UserError(f"--code_words={path} exists; give a new file, or remove it.")
    if not file.parent.is_dir():
        raise UserError(f"--code_words={path} is in no folder; create {file.parent} first.")
    if dataset.origin:
        raise UserError(f"The training reasons of {dataset.folder} were written by a model; give the dataset that they were written for.")
    learned = judges.references(dataset, "train", judges.FOR_REWARDS)  # so that the judge of a report is another
    measured = {length_bands.NAME} if judges.bands(dataset) else set()
    codes = {name: values for name, values in dataset.controls.items() if name not in measured and all(map(nameable, (name, *values)))}
    found = {name: lists(name, values, learned, tokenizer) for name, values in codes.items()}
    found = {name: listed for name, listed in found.items() if len(listed) > 1}
    if not found:
        raise UserError(f"No control code of {dataset.folder} has two values that words tell apart; declare codes, or write lists by hand.")
    replace_text(file, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    return found


def lists(name: str, values: Iterable[str], examples: Iterable[dict], tokenizer: Tokenizer) -> dict[str, list[str]]:
    """value -> its most telling words, the surest first, each a single token; values that have none are left out.

    Words of the titles that a reason names don't count: pulled, they would spell products that are not there.
    """
    labelled = [(judge.words(_untitled(e)), e["control"][name]) for e in examples if e["control"].get(name)]
    occurring = set().union(*(held for held, _ in labelled))
    vocabulary = sorted(word for word in occurring if len(spellings(word, tokenizer)[0]) == 1)
    index, rows = {word: i for i, word in enumerate(vocabulary)}, {value: i for i, value in enumerate(values)}
    counts_CV = np.zeros((len(rows), len(vocabulary)))
    for held, value in labelled:
        counts_CV[rows[value], [index[word] for word in held if word in index]] += 1
    if len(vocabulary) < 2:
        return {}
    z_CV = z_scores(counts_CV)
    own_V = z_CV.argmax(0)  # a word is pulled for one value only
    found = {}
    for value, c in rows.items():
        best = [v for v in np.argsort(-z_CV[c], kind="stable") if own_V[v] == c and z_CV[c, v] > LEAST_Z][:MOST]
        found |= {value: [vocabulary[v] for v in best]} if best else {}
    return found


def _untitled(example: dict) -> str:
    """The reason without the titles that it names."""
    titles = {history_slot(i): event.get("title") or "" for i, event in enumerate(example.get("history") or [])}
    return slots.fill(slots.extract(example["reason"], titles | {ITEM_SLOT: example["item"].get("title") or ""}), {})

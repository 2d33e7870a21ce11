"""Input as transformers' users build it: batches grouped by length, padded to the longest of each (group_by_length of its Trainer)."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from rgjax.data import pipeline

IGNORED = -100  # a label without loss, in transformers
MOST_SORTED = 50  # batches that LengthGroupedSampler sorts together, where there are enough


class Texts:
    """Examples as (prompt, reason) texts, tokenized and cut when one is read; loss on the reason. What torch calls a map-style dataset."""

    def __init__(self, texts: list[tuple[str, str]], tokenizer, prompt_length: int, target_length: int):
        self.texts, self.tokenizer, self.prompt_length, self.target_length = texts, tokenizer, prompt_length, target_length

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        prompt, reason = self.texts[index]
        encode = lambda text, most: self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=most)["input_ids"]
        head, tail = encode(prompt, self.prompt_length), encode(reason, self.target_length)
        return {"input_ids": head + tail, "attention_mask": [1] * len(head + tail), "labels": [IGNORED] * len(head) + tail}


def texts_of(dataset, template, tokenizer) -> list[tuple[str, str]]:
    """The training examples as the template writes them, turned back into text."""
    decode = lambda ids: tokenizer.backend.decode(ids, skip_special_tokens=False)
    return [(decode(r.prompt_ids), decode(r.target_ids)) for r in map(template.render, dataset.examples("train"))]


def unpacked(batches: list[dict[str, np.ndarray]]) -> list[dict[str, list[int]]]:
    """The examples in decoder-only batches, each alone: `input_ids`, and `labels` with IGNORED where there is no loss, as `alone` has them."""
    found = []
    for batch in batches:
        for r, segments in enumerate(batch["segment_ids"]):
            for number in range(1, segments.max() + 1):
                found.append(alone({name: batch[name][r][segments == number] for name in ("tokens", "targets", "weights")}))
    return found


def alone(arrays: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """One example of decoder-only rows, not padded, as transformers reads it."""
    tokens, targets, weights = (arrays[name].tolist() for name in ("tokens", "targets", "weights"))
    labels = [t if w else IGNORED for t, w in zip(targets, weights, strict=True)]
    return {"input_ids": [*tokens, targets[-1]], "attention_mask": [1] * (len(tokens) + 1), "labels": [IGNORED, *labels]}


def training_examples(task, dataset, seed: int, most: int) -> list[dict[str, list[int]]]:
    """The training examples of a decoder-only task, each alone and cut as in its batches; so many of them drawn where there are more."""
    rng, source = np.random.default_rng(seed), dataset.source("train")
    chosen = np.sort(rng.permutation(len(source))[:most])
    fed = lambda i: pipeline.as_fed(source[int(i)], task.template, task.input, "causal", rng.random() >= task.input.control_dropout)
    return [alone(fed(i)) for i in chosen]


def open_tokenizer(folder: str | pathlib.Path):
    """A dataset's tokenizer as transformers loads it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, padding_side="right")


def loader(examples, lengths: list[int], tokenizer, rows: int, workers: int = 0):
    """A DataLoader of `rows` examples a batch, drawn by LengthGroupedSampler and padded by DataCollatorForSeq2Seq."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForSeq2Seq
    from transformers.trainer_pt_utils import LengthGroupedSampler

    sampler = LengthGroupedSampler(rows, lengths=lengths, generator=torch.Generator().manual_seed(0))
    collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
    # Not forked: JAX has threads.
    apart = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "forkserver"} if workers else {}
    return DataLoader(examples, rows, sampler=sampler, collate_fn=collator, **apart)


def mega_batch(examples: int, rows: int) -> int:
    """How many batches LengthGroupedSampler sorts together, by its own default."""
    return max(1, min(examples // (4 * rows), MOST_SORTED))


def endless(made) -> Iterator[dict]:
    """The batches of a loader, epoch after epoch."""
    return itertools.chain.from_iterable(itertools.repeat(made))


def count(batch: dict) -> dict[str, int]:
    """Real tokens, target tokens, examples and slots (padding included) of a batch."""
    mask, labels = batch["attention_mask"], batch["labels"]
    return {"tokens": int(mask.sum()), "target_tokens": int((labels != IGNORED).sum()), "examples": len(mask), "slots": mask.numel()}

"""One example as tokens: who the shopper is, what they did, the item, the control codes, and then the reason.

    <s> <|user|>age: 34 <|history|> <h1>Fargo (Crime; Drama) <h0>Heat (Action) <|item|>Ronin; genre: Action
        <|control|> <|style=concise|> <|reason|> You liked "<h0>", so ... </s>

What is too long is cut in this order: the oldest history, the item's description from its end, the profile from its end, and
only if still needed the item's attributes from their end; the control codes never, the title only where it alone exceeds the room.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from rgjax.config import InputConfig
from rgjax.data import slots as slots_lib
from rgjax.data.slots import neutral
from rgjax.data.tokenizer import ATTRIBUTE_SLOTS, ITEM_SLOT, Tokenizer, attribute_slot, control_token, history_slot
from rgjax.errors import UserError

LEAST_PROMPT = 16  # tokens: markers, control codes and a short title


@dataclasses.dataclass(frozen=True)
class Rendered:
    """`prompt_ids` end with <|reason|>; `target_ids` end with the end token, unless the reason was cut (it did not end there)."""

    prompt_ids: list[int]
    target_ids: list[int]
    surfaces: dict[str, str]  # slot token -> string to put back
    truncated: bool
    vector: np.ndarray | None = None  # float32 [Z], where the model reads precomputed vectors
    plain_ids: list[int] | None = None  # the prompt without control codes, where decoding is guided by what these add
    required: tuple[str, ...] = ()  # words that the reason must hold
    control: dict[str, str] = dataclasses.field(default_factory=dict)  # codes that it is asked for with


def attribute_values(attributes: dict | None) -> list[tuple[str, str]]:
    """(name, value) pairs of an attribute dict; lists give one pair per value."""
    pairs = []
    for name, value in (attributes or {}).items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if one is not None and str(one).strip():
                pairs.append((str(name), str(one).strip()))
    return pairs


class Template:
    """Renders examples for one tokenizer and one input configuration."""

    def __init__(self, tokenizer: Tokenizer, config: InputConfig, architecture: str = "causal"):
        self.tokenizer, self.config, self.architecture = tokenizer, config, architecture
        self.budget = config.length - (config.target_length if architecture == "causal" else 0)
        if self.budget < LEAST_PROMPT:
            raise UserError(
                f"--target_length={config.target_length} leaves {self.budget} of --length={config.length} to the prompt; "
                f"leave at least {LEAST_PROMPT}."
            )
        self.encode = functools.lru_cache(maxsize=200_000)(lambda text: tuple(tokenizer.encode(text)))
        self.history_slots = sum(tokenizer.id_of(history_slot(i)) is not None for i in range(512))
        self.bos = [tokenizer.bos_id]
        self.ends: tuple[int, ...] = (tokenizer.eos_id,)  # ids that end a reason
        self.written: tuple[int, ...] = ()  # further special tokens that a model writes

    def __reduce__(self):
        """Travels to a worker process without its cache, which can't be pickled."""
        return type(self), (self.tokenizer, self.config, self.architecture)

    def render(self, example: dict, with_control: bool = True) -> Rendered:
        """Tokens of one example; `with_control=False` leaves the control codes out (code dropout)."""
        history = self.shown_history(example)
        surfaces = self.surfaces(example, history)
        prompt, truncated = self._prompt(example, history, surfaces, with_control)
        shown = set(prompt)  # what was cut away can't be pointed at
        surfaces = {slot: t for slot, t in surfaces.items() if slot == ITEM_SLOT or self.tokenizer.id_of(slot) in shown}
        target = list(self.encode(self.target_text(example, surfaces))) + [self.tokenizer.eos_id]
        limit = self.config.target_length
        return Rendered(prompt, target[:limit], surfaces, truncated or len(target) > limit)

    def shown(self, example: dict) -> str:
        """The prompt of an example as text."""
        return self.tokenizer.backend.decode(self.render(example).prompt_ids, skip_special_tokens=False)

    def spoken(self, ids: list[int]) -> list[int]:
        """Of the ids that a model wrote, those of the reason."""
        return ids

    def shown_history(self, example: dict) -> list[dict]:
        """The events the prompt shows, the nearest last."""
        events = list(example.get("history") or [])
        if self.config.history_order == "overlap":
            wanted = {v for _, v in attribute_values(example["item"].get("attributes"))}
            share = lambda e: len(wanted & (own := {v for _, v in attribute_values(e.get("attributes"))})) / (len(own) + 1)
            events.sort(key=share)  # stable: equal overlap keeps the order of time
        return events[len(events) - min(len(events), self.config.max_history) :]

    def surfaces(self, example: dict, history: list[dict]) -> dict[str, str]:
        """Slot token -> the input's string, for everything that may be copied."""
        if self.config.copy_slots == "none" or not self.history_slots:
            return {}
        found = {ITEM_SLOT: example["item"].get("title") or ""}
        for i, event in enumerate(reversed(history[-self.history_slots :])):
            found[history_slot(i)] = event.get("title") or ""
        if self.config.copy_slots == "all":
            for i, (_, value) in enumerate(attribute_values(example["item"].get("attributes"))[:ATTRIBUTE_SLOTS]):
                found[attribute_slot(i)] = value
        return {slot: text for slot, text in found.items() if text}

    def target_text(self, example: dict, surfaces: dict[str, str]) -> str:
        """The reason as the model is to write it."""
        reason = example.get("reason") or ""
        if not surfaces:
            return neutral(reason)
        values = {s: v for s, v in surfaces.items() if s.startswith("<a")}
        return slots_lib.extract(reason, {s: v for s, v in surfaces.items() if s not in values}, values)

    def _prompt(self, example, history, surfaces, with_control) -> tuple[list[int], bool]:
        user, item = self._user(example.get("user") or {}), self._item(example["item"], surfaces)
        about = self._about(example["item"])
        tail = self._control(example.get("control") or {}) if with_control else []
        tail = tail + list(self.encode("<|reason|>"))
        room = self.budget - len(self.bos) - len(item) - len(tail)
        cut = room < 0
        if cut:
            item, room = item[: max(0, len(item) + room)], 0
        user, room, cut_user = _fit(user, room)
        about, room, cut_about = _fit(about, room)
        events, dropped = self._history(history, surfaces, room)
        return self.bos + user + events + item + about + tail, cut or cut_user or cut_about or dropped

    def _history(self, history, surfaces, room) -> tuple[list[int], bool]:
        head = list(self.encode("<|history|>"))
        chosen, used = [], len(head)
        for i, event in enumerate(reversed(history)):
            ids = self.encode(self._event(event, history_slot(i) if history_slot(i) in surfaces else ""))
            if used + len(ids) > room:
                break
            chosen.append(ids)
            used += len(ids)
        if not chosen:
            return [], bool(history)
        return head + [t for ids in reversed(chosen) for t in ids], len(chosen) < len(history)

    def _event(self, event: dict, slot: str) -> str:
        values = "; ".join(v for _, v in attribute_values(event.get("attributes")))
        text = neutral(f"{event.get('title') or event.get('item') or ''}" + (f" ({values})" if values else ""))
        return f"{slot}{text}" if slot else f" {text};"

    def _user(self, user: dict) -> list[int]:
        pairs = "; ".join(f"{n}: {v}" for n, v in attribute_values(user.get("attributes")))
        text = " ".join(t for t in (user.get("profile") or "", pairs) if t)
        return list(self.encode("<|user|>" + neutral(text))) if text else []

    def _item(self, item: dict, surfaces: dict[str, str]) -> list[int]:
        text, previous = "<|item|>" + neutral(item.get("title") or ""), None
        for i, (name, value) in enumerate(attribute_values(item.get("attributes"))):
            slot = attribute_slot(i) if attribute_slot(i) in surfaces else ""
            text += (", " if name == previous else neutral(f"; {name}: ")) + slot + neutral(value)
            previous = name
        return list(self.encode(text))

    def _about(self, item: dict) -> list[int]:
        text = item.get("description") or ""
        return list(self.encode("<|about|>" + neutral(text))) if text else []

    def _control(self, control: dict) -> list[int]:
        text = "".join(control_token(n, str(v)) for n, v in sorted(control.items()) if v is not None)
        return list(self.encode("<|control|>" + text)) if text else []


def _fit(ids: list[int], room: int) -> tuple[list[int], int, bool]:
    kept = ids[: max(room, 0)]
    return kept, room - len(kept), len(kept) < len(ids)


def example_texts(example: dict) -> Iterator[str]:
    """The texts of an example that a tokenizer should learn from."""
    user, item = example.get("user") or {}, example["item"]
    yield from (t for t in (user.get("profile"), item.get("title"), item.get("description"), example.get("reason")) if t)
    pairs = attribute_values(item.get("attributes")) + attribute_values(user.get("attributes"))
    yield "; ".join(f"{n}: {v}" for n, v in pairs)
    for event in example.get("history") or []:
        values = "; ".join(v for _, v in attribute_values(event.get("attributes")))
        yield f"{event.get('title') or ''} ({values})"

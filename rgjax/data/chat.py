"""One example as a conversation: a user message in words, written by the tokenizer's own chat template, and the reason as its answer.

    Shopper: likes slow films; age: 34
    History:
    - Fargo (Crime; Drama)
    - Heat (Action)
    Item: Ronin; genre: Action
    Description: A taut film of spies in Paris
    Wanted: style: concise
    Write one short, personal reason why this item suits this shopper.

What is too long is cut in the order of `rgjax.data.template`, of the message alone: what the template writes around it never is,
and of the message neither the instruction nor the control codes. No text of an example can act as a token or a marker of the
template: it is written otherwise (`plain`), and each rendering is compared with what the template alone writes.
"""

from __future__ import annotations

import re
import unicodedata

from rgjax.config import InputConfig
from rgjax.data.chat_template import ChatTemplate
from rgjax.data.slots import neutral
from rgjax.data.template import LEAST_PROMPT, Rendered, Template, attribute_values
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError

_MARK = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\]")  # <|im_end|>, </s>, [/INST]
_PROBE, _ANSWER = "lamp", "good"  # stand for the message and the answer where only what is around them counts


class ChatPrompt(Template):
    """Renders examples through a chat template; `copy_slots` does not apply (`surfaces` is empty)."""

    def __init__(self, tokenizer: Tokenizer, config: InputConfig, architecture: str = "causal"):
        """Raises UserError when the tokenizer has no chat template, or it fails, or leaves no room for an example."""
        super().__init__(tokenizer, config, architecture)
        if not tokenizer.chat_template:
            raise UserError(
                "--prompt=chat needs a chat template and the dataset's tokenizer has none; prepare the dataset with --tokenizer=FOLDER "
                "of a model that has one, or take --prompt=markers."
            )
        self.chat = ChatTemplate(tokenizer.chat_template, {f"{role}_token": token for role, token in tokenizer.named.items()})
        self._read_frame()
        self.instruction = self.plain(config.instruction)
        left = self.budget - self.frame - self._size(self.instruction)
        if left < LEAST_PROMPT:
            raise UserError(
                f"--length={config.length} leaves {max(left, 0)} tokens to an example beside the chat template, --instruction and "
                f"--target_length={config.target_length}; leave at least {LEAST_PROMPT}."
            )

    def _read_frame(self) -> None:
        """What the template writes around a message and an answer, and by which token it ends the answer."""
        table = self.tokenizer.backend.get_added_tokens_decoder()
        self.marks = {i for i, t in table.items() if t.special or _MARK.fullmatch(t.content)} | {self.tokenizer.eos_id}
        prompt, suffix = self._texts(_PROBE, _ANSWER)
        if _PROBE not in prompt or _ANSWER not in suffix:
            raise UserError("The tokenizer's chat template leaves out what the user or the assistant says; take --prompt=markers.")
        written = {m for m in _MARK.findall(prompt + suffix)} | {self.tokenizer.backend.id_to_token(i) for i in self.marks}
        forms = sorted(filter(None, written), key=lambda form: (-len(form), form))
        self._forms = re.compile("|".join(map(re.escape, forms)), re.IGNORECASE)
        lead, _, closing = suffix.partition(_ANSWER)
        self.end_of_turn = next((i for i in self.tokenizer.encode(closing) if i in self.marks), None)
        self.lead_marks = self._marks_of(self.tokenizer.encode(lead))
        self.prompt_marks = self._marks_of(ids := self.tokenizer.encode(prompt))
        self.frame = len(ids)
        self.ends = tuple(dict.fromkeys(i for i in (self.end_of_turn, self.tokenizer.eos_id) if i is not None))
        self.written = tuple(self.lead_marks)

    def render(self, example: dict, with_control: bool = True) -> Rendered:
        """Tokens of one example; `with_control=False` leaves the control codes out (code dropout)."""
        message, prompt, truncated = self._prompt_within(example, with_control)
        target = self._target(message, prompt, example.get("reason") or "")
        limit = self.config.target_length
        return Rendered(prompt, target[:limit], {}, truncated or len(target) > limit)

    def shown(self, example: dict) -> str:
        """The user message of an example, as one writes it to the trained model."""
        return self._prompt_within(example, True)[0]

    def spoken(self, ids: list[int]) -> list[int]:
        """What was written, without what the template itself writes at the beginning of an answer."""
        places = [n for n, i in enumerate(ids) if i in self.marks][: len(self.lead_marks)]
        return ids[places[-1] + 1 :] if places and [ids[n] for n in places] == self.lead_marks else ids

    def plain(self, text: str) -> str:
        """`text` with whatever would be a token or marker of the template written otherwise."""
        text = neutral(text)
        while self._forms.search(text):
            text = self._forms.sub(lambda m: _disarmed(m[0]), text)
        return text

    def _texts(self, message: str, answer: str | None = None) -> tuple[str, str]:
        """(prompt, what follows it where the assistant says `answer`)."""
        conversation = [{"role": "user", "content": message}]
        prompt = self.chat.render(conversation, True)
        if answer is None:
            return prompt, ""
        whole = self.chat.render([*conversation, {"role": "assistant", "content": answer}], False)
        if not whole.startswith(prompt):
            raise UserError("The tokenizer's chat template begins an answered conversation otherwise than its prompt; take --prompt=markers.")
        return prompt, whole[len(prompt) :]

    def _marks_of(self, ids: list[int]) -> list[int]:
        return [i for i in ids if i in self.marks]

    def _prompt_within(self, example: dict, with_control: bool) -> tuple[str, list[int], bool]:
        """(message, prompt ids, cut): the message shrinks until the whole prompt fits its budget."""
        room = self.budget - self.frame
        while True:
            message, cut = self._message(example, with_control, room)
            message, ids = self._guarded(message)
            if len(ids) <= self.budget:
                return message, ids, cut
            if room < 0:  # control codes alone exceed the row
                return self._prompt_within(example, False)
            room -= len(ids) - self.budget

    def _guarded(self, message: str) -> tuple[str, list[int]]:
        """The message and its prompt, in which no special token stands but those the template writes."""
        for text in (message, _bare(message)):
            ids = self.tokenizer.encode(self._texts(text)[0])
            if self._marks_of(ids) == self.prompt_marks:
                return text, ids
        raise UserError(f"The text {message[:60]!r} would write a special token of the tokenizer; clean the data, or take --prompt=markers.")

    def _target(self, message: str, prompt: list[int], reason: str) -> list[int]:
        end = self.ends[0]
        if not reason:
            return [end]
        for answer in (self.plain(reason), _bare(reason)):
            before, suffix = self._texts(message, answer)
            whole = self.tokenizer.encode(before + suffix)
            # What follows the prompt, as the model continues it; text that joins the prompt's last token is read by itself.
            ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else self.tokenizer.encode(suffix)
            ids = ids[: ids.index(end) + 1] if end in ids else [*ids, end]
            if self._marks_of(ids) == [*self.lead_marks, end]:
                return ids
        raise UserError(f"The reason {reason[:60]!r} would write a special token of the tokenizer; clean the data, or take --prompt=markers.")

    def _message(self, example: dict, with_control: bool, room: int) -> tuple[str, bool]:
        """The lines of an example within about `room` tokens, and whether something was cut."""
        item, about = example["item"], example["item"].get("description") or ""
        control = self._line("Wanted", self._pairs(dict(sorted((example.get("control") or {}).items())))) if with_control else ""
        tail = [control, self.instruction]
        room -= sum(map(self._size, tail))
        item, room, cut = self._cut("Item", self._item_text(item), room)
        user, room, cut_user = self._cut("Shopper", self._user_text(example.get("user") or {}), room)
        about, room, cut_about = self._cut("Description", about, room)
        events, dropped = self._events(self.shown_history(example), room)
        lines = [user, *events, item, about, *tail]
        return "\n".join(filter(None, lines)), cut or cut_user or cut_about or dropped

    def _events(self, history: list[dict], room: int) -> tuple[list[str], bool]:
        lines, room = [], room - self._size("History:")
        for event in reversed(history):
            values = "; ".join(v for _, v in attribute_values(event.get("attributes")))
            title = f"{event.get('title') or event.get('item') or ''}" + (f" ({values})" if values else "")
            line = "- " + self._flat(title)
            room -= self._size(line)
            if room < 0:
                break
            lines.append(line)
        return ["History:", *reversed(lines)] if lines else [], len(lines) < len(history)

    def _cut(self, label: str, text: str, room: int) -> tuple[str, int, bool]:
        """(the line as far as it fits, the room left, whether it was cut)."""
        line = self._line(label, text)
        if self._size(line) <= room:
            return line, room - self._size(line), False
        kept = self.tokenizer.cut(line, max(room - 1, 0)).rstrip()
        kept = kept if len(kept) > len(label) + 2 else ""
        return kept, room - self._size(kept), bool(line)

    def _size(self, line: str) -> int:
        return len(self.encode(line + "\n")) if line else 0

    def _line(self, label: str, text: str) -> str:
        return f"{label}: {flat}" if (flat := self._flat(text)) else ""

    def _flat(self, text: str) -> str:
        return self.plain(" ".join(text.split()))  # one line: a title can't write lines of its own

    def _user_text(self, user: dict) -> str:
        return "; ".join(t for t in (user.get("profile") or "", self._pairs(user.get("attributes"))) if t)

    def _item_text(self, item: dict) -> str:
        return "; ".join(t for t in (item.get("title") or "", self._pairs(item.get("attributes"))) if t)

    def _pairs(self, attributes: dict | None) -> str:
        """'name: value, value; name: value'."""
        text, previous = "", None
        for name, value in attribute_values(attributes):
            text += f", {value}" if name == previous else f"; {name}: {value}"
            previous = name
        return text.removeprefix("; ")


def _disarmed(form: str) -> str:
    return f"‹{form[1:]}" if form[0] == "<" else f"{form[0]} {form[1:]}" if form[1:] else " "


def _bare(text: str) -> str:
    """Words and plain punctuation: what is left of a text that a tokenizer's own normalisation turned into tokens."""
    return re.sub(r"[^\w\s.,;:!?()'。，；：！？、-]", " ", unicodedata.normalize("NFKC", text))

"""Byte-level BPE tokenizer: trained on the data or loaded from a local Hugging Face folder, saved so that `transformers` loads it."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from rgjax.errors import UserError

PAD, EOS, BOS = "<pad>", "</s>", "<s>"
MARKERS = ("<|user|>", "<|history|>", "<|item|>", "<|about|>", "<|control|>", "<|reason|>")
ITEM_SLOT = "<item>"
CHAT_TEMPLATE = "chat_template.jinja"
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # of special tokens, as transformers names them
ATTRIBUTE_SLOTS = 24  # more values than that per item are written out, not slotted


def history_slot(i: int) -> str:
    """Slot token of the i-th shown history event, 0 being the one shown last."""
    return f"<h{i}>"


def attribute_slot(i: int) -> str:
    """Slot token of the i-th attribute value of the item."""
    return f"<a{i}>"


def control_token(name: str, value: str) -> str:
    """The token of one control code, e.g. <|style=concise|>."""
    return f"<|{name}={value}|>"


class Tokenizer:
    """A thin face over `tokenizers.Tokenizer` that knows the ids of padding, end and begin, and the chat template it came with.

    `named` are the special tokens that its folder calls by their roles (`ROLES`); begin and padding may be stand-ins.
    """

    def __init__(
        self, backend: Backend, pad: str = PAD, eos: str = EOS, bos: str = BOS, chat_template: str = "", named: dict[str, str] | None = None
    ):
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.pad, self.eos, self.bos, self.chat_template = backend, pad, eos, bos, chat_template
        self.named = {"bos": bos} if named is None else named
        self.named |= {"eos": eos, "pad": pad}
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())  # ids may have gaps
        self.pad_id, self.eos_id, self.bos_id = (backend.token_to_id(t) for t in (pad, eos, bos))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added at either end."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; faster than one by one."""
        return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_framed(self, texts: Sequence[str], longest: int) -> list[list[int]]:
        """Token ids of each text with what the folder's post-processor adds ([CLS] ... [SEP]), at most `longest` in all."""
        self.backend.enable_truncation(longest)
        try:
            return [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=True)]
        finally:
            self.backend.no_truncation()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without padding, begin and end, but with slot tokens kept (`slots.fill` needs them)."""
        drop = {self.pad_id, self.eos_id, self.bos_id}
        return self.backend.decode([int(i) for i in ids if int(i) not in drop], skip_special_tokens=False)

    def cut(self, text: str, tokens: int) -> str:
        """The longest beginning of `text` that takes at most so many tokens, whole characters only."""
        offsets = self.backend.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= tokens else text[: offsets[max(tokens, 0)][0]]

    def id_of(self, token: str) -> int | None:
        """Id of a token, or None where the vocabulary lacks it."""
        return self.backend.token_to_id(token)

    def token_bytes(self) -> list[bytes]:
        """The bytes each id stands for (byte-level vocabularies); special tokens stand for none."""
        table = {c: b for b, c in _byte_alphabet().items()}
        specials = {i for i, t in self.backend.get_added_tokens_decoder().items()}
        out = []
        for i in range(self.vocab_size):
            token = self.backend.id_to_token(i) or ""
            out.append(b"" if i in specials else bytes(table.get(c, 63) for c in token))
        return out

    def checksum(self) -> str:
        """sha256 of the tokenizer's definition, and of its chat template if it has one."""
        return hashlib.sha256((self.backend.to_str() + self.chat_template).encode()).hexdigest()

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and the chat template, in the form that transformers 4 and 5 both load.

        A chat template is written twice, as older and newer versions look for it. A begin token that only stands in for a missing
        one is not named beside it: the template would write it.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        roles = {"pad": self.pad, "eos": self.eos} | ({} if self.chat_template else {"bos": self.bos}) | self.named
        names = {f"{role}_token": token for role, token in roles.items()}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
        if self.chat_template:
            config["chat_template"] = self.chat_template
            (folder / CHAT_TEMPLATE).write_text(self.chat_template, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Tokenizer:
        """Reads a Hugging Face tokenizer folder; raises UserError when it has no tokenizer.json or no end token."""
        folder = pathlib.Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise UserError(f"{folder} holds no tokenizer.json; give a folder written by launch.prepare or transformers (fast).")
        try:
            backend = Backend.from_file(str(file))
        except Exception as error:  # the Rust side raises plain Exception
            raise UserError(f"{file} is not a readable tokenizer ({str(error).splitlines()[0]}); write it again.") from None
        return cls(backend, **_special_names(folder, backend), chat_template=_chat_template(folder), named=_named(folder, backend))


def _by_name(folder: pathlib.Path) -> list[dict[str, str]]:
    """Role -> special token, as each of the two files that name them says; raises UserError where one is no text."""
    found = []
    for file in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        config = _read(file)
        tokens = {role: config.get(f"{role}_token") for role in ROLES}
        tokens = {role: token.get("content") if isinstance(token, dict) else token for role, token in tokens.items()}  # older files nest it
        if odd := next((role for role, token in tokens.items() if token and not isinstance(token, str)), None):
            raise UserError(f"{file} has {odd}_token={tokens[odd]!r}, which is no text; write the token itself.")
        found.append({role: token for role, token in tokens.items() if token})
    return found


def _by_number(file: pathlib.Path, role: str, backend: Backend) -> str | None:
    """The token whose id a model's configuration gives for a role; raises UserError where it gives no id, or one that ends nothing."""
    said = i = _read(file).get(f"{role}_token_id")
    i = i[0] if isinstance(i, list) and i else i
    if i is None or i == []:
        return None
    whole = isinstance(i, int) and not isinstance(i, bool)
    token = backend.id_to_token(i) if whole and 0 <= i < 1 << 32 else None
    if not whole or (token is None and role == "eos"):  # other roles have stand-ins, and -1 says that there is none
        raise UserError(f"{file} has {role}_token_id={said!r}, which is no id of its vocabulary; set {role}_token in tokenizer_config.json.")
    return token


def _named(folder: pathlib.Path, backend: Backend) -> dict[str, str]:
    """Role -> special token, as far as the folder names one (or has it under BERT's usual name) and its vocabulary has it."""
    configs = _by_name(folder)
    usual = {role: f"[{role.upper()}]" for role in ("unk", "sep", "cls", "mask")} if isinstance(backend.model, models.WordPiece) else {}
    found = {role: next((config[role] for config in configs if role in config), usual.get(role)) for role in ROLES}
    return {role: token for role, token in found.items() if token and backend.token_to_id(token) is not None}


def _chat_template(folder: pathlib.Path) -> str:
    """The default chat template of a folder, "" where it has none."""
    file = folder / CHAT_TEMPLATE
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except ValueError:
            raise UserError(f"{file} is not UTF-8 text; write it again.") from None
    found = _read(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((t.get("template") for t in found if isinstance(t, dict) and t.get("name") == "default"), None)
    return found if isinstance(found, str) else ""


def _special_names(folder: pathlib.Path, backend: Backend) -> dict[str, str]:
    """The tokens that end, begin and pad: by name, else by id, else (padding and begin) the token that ends; a BERT begins with [CLS]."""
    named, numbered = _by_name(folder), (folder / "generation_config.json", folder / "config.json")

    def found(role: str) -> str | None:
        by_name = (config[role] for config in named if role in config)
        return next(by_name, None) or next(filter(None, (_by_number(file, role, backend) for file in numbered)), None)

    usual = next((t for t in (EOS, "[SEP]") if backend.token_to_id(t) is not None), EOS)
    eos = found("eos") or found("sep") or usual
    names = {"eos": eos, "bos": found("bos") or found("cls") or eos, "pad": found("pad") or eos}
    for role, name in names.items():
        if backend.token_to_id(name) is None:
            raise UserError(f"{folder} has no {role} token '{name}' in its vocabulary; set {role}_token in tokenizer_config.json.")
    return names


def _read(file: pathlib.Path) -> dict:
    """The object in a JSON file, or an empty one where there is no file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not JSON; write it again.") from None
    return found if isinstance(found, dict) else {}


def train_bpe(texts: Iterable[str], vocab_size: int, slots: int, controls: dict[str, list[str]]) -> Tokenizer:
    """Trains a byte-level BPE vocabulary of at most `vocab_size` tokens; ids 0, 1, 2 are padding, end and begin.

    `slots` history slots, the item and attribute slots, the section markers and one token per declared control value are
    single tokens. The same texts in the same order give the same vocabulary. Raises UserError where these and the bytes are more than
    `vocab_size`.
    """
    specials = [PAD, EOS, BOS, *MARKERS, ITEM_SLOT]
    specials += [history_slot(i) for i in range(slots)] + [attribute_slot(i) for i in range(ATTRIBUTE_SLOTS)]
    specials += [control_token(n, v) for n, values in controls.items() for v in values]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < (least := len(specials) + len(alphabet)):
        raise UserError(f"--vocab_size={vocab_size} has no room for {len(alphabet)} bytes and {len(specials)} special tokens; give {least} or more.")
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=alphabet,
        max_token_length=24,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte value."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table



"""The files with which a BERT folder is one of sentence-transformers: how its hidden states become one vector a text.

    modules.json                  the modules in order: Transformer, Pooling and, for unit length, Normalize
    sentence_bert_config.json     most tokens of a text, whether it is lower-cased first
    1_Pooling/config.json         the mean over the tokens, or the first of them
    config_sentence_transformers.json   prompts and similarity, which we only carry over

Class paths and pooling fields are read in the older form (`sentence_transformers.models.Pooling`, one flag a mode) and in that of 6.2;
the older one is written, which 6.2 loads too.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from rgjax.errors import UserError
from rgjax.hf.folder import read_json

POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
OTHERS = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
CARRIED = ("prompts", "similarity_fn_name")
KNOWN = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])


@dataclasses.dataclass(frozen=True)
class Sentence:
    """`pooling` is 'mean' or 'cls'; `normalize` makes vectors of unit length; `longest` is the most tokens of a text, [CLS] and [SEP] included."""

    pooling: str
    normalize: bool
    longest: int
    lower: bool = False
    carried: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def fresh(cls, folder: pathlib.Path, pooling: str, positions: int) -> Sentence:
        """Unit vectors by `pooling` for a folder that says no more than what its tokenizer takes."""
        return cls(pooling, True, _longest(folder, {}, positions))

    @classmethod
    def read(cls, folder: pathlib.Path, positions: int) -> Sentence | None:
        """What the folder says, None without modules.json; `positions` is the model's longest sequence.

        Raises UserError on modules, poolings or default prompts that we do not compute.
        """
        if not (folder / "modules.json").is_file():
            return None
        pooling, normalize = _modules(folder)
        settings, more = _optional(folder / "sentence_bert_config.json"), _optional(folder / "config_sentence_transformers.json")
        if prompt := more.get("default_prompt_name"):
            raise UserError(f"{folder}/config_sentence_transformers.json has default_prompt_name {prompt!r}, and rgjax adds none; set it to null.")
        carried = {name: more[name] for name in CARRIED if more.get(name)}
        return cls(pooling, normalize, _longest(folder, settings, positions), bool(settings.get("do_lower_case")), carried)

    def write(self, folder: pathlib.Path, width: int) -> None:
        """Writes the files into a folder that holds a model of `width`."""
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if self.normalize else [])]
        rows = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(modules)]
        for path, _ in modules[1:]:
            (folder / path).mkdir()
        modes = {field: self.pooling == name for name, field in POOLINGS.items()} | {f"pooling_mode_{name}": False for name in OTHERS}
        _json(folder / "modules.json", rows)
        _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width} | modes)
        _json(folder / "sentence_bert_config.json", {"max_seq_length": self.longest, "do_lower_case": self.lower})
        if self.carried:
            _json(folder / "config_sentence_transformers.json", self.carried)


def _modules(folder: pathlib.Path) -> tuple[str, bool]:
    """(pooling, whether Normalize follows)."""
    try:
        rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        rows = [(row["type"], row["path"]) for row in sorted(rows, key=lambda row: row["idx"])]
        kinds = [kind.rsplit(".", 1)[-1] if kind.startswith("sentence_transformers.") else kind for kind, _ in rows]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{folder}/modules.json is damaged (no list of modules); fetch it again.") from None
    if other := next((kind for kind in kinds if kind not in KNOWN[1]), None):
        raise UserError(f"{folder}/modules.json has the module {other!r}, and rgjax computes {', '.join(KNOWN[1])} only; use another model.")
    if kinds not in KNOWN or rows[0][1]:
        listed = f"{', '.join(kinds)}, and rgjax computes {', '.join(KNOWN[1])} in this order only"
        raise UserError(f"{folder}/modules.json has {listed}; use another model.")
    for kind, path in rows[1:]:
        if not isinstance(path, str) or path in ("", "..") or pathlib.PurePath(path).name != path:
            raise UserError(f"{folder}/modules.json places {kind} at {path!r}, which is no folder inside it; fetch it again.")
    if len(rows) == 3:
        at = _optional(folder / rows[2][1] / "config.json").get("module_input_name", "sentence_embedding")
        if at != "sentence_embedding":
            raise UserError(f"{folder}/{rows[2][1]}/config.json normalises {at!r}, and rgjax 'sentence_embedding' only; use another model.")
    return _pooling(folder / rows[1][1] / "config.json"), len(rows) == 3


def _pooling(path: pathlib.Path) -> str:
    config = read_json(path)
    found = [name for name, on in config.items() if name.startswith("pooling_mode_") and on] or ["pooling_mode_mean_tokens"]  # what theirs takes
    modes = config.get("pooling_mode") or [next((n for n, field in POOLINGS.items() if field == name), name) for name in found]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in POOLINGS:
        raise UserError(f"{path} pools by {' and '.join(map(str, modes))}, and rgjax by {' or '.join(POOLINGS)} only; use another model.")
    return modes[0]


def _longest(folder: pathlib.Path, settings: dict, positions: int) -> int:
    """The folder's own limit, else its tokenizer's (which may be absurdly large), within the positions of the model."""
    said = settings.get("max_seq_length") or _optional(folder / "tokenizer_config.json").get("model_max_length") or positions
    if isinstance(said, bool) or not isinstance(said, int | float) or not said >= 3:  # nor NaN; [CLS], a token, [SEP]
        raise UserError(f"{folder}/sentence_bert_config.json says max_seq_length={said!r}, no whole number above 2; mend it.")
    return int(min(said, positions))


def _optional(path: pathlib.Path) -> dict:
    return read_json(path) if path.is_file() else {}


def _json(path: pathlib.Path, value: dict | list) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

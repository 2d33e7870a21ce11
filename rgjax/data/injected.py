"""Instructions to the model in texts that come from outside: "... ignore the above and write ..." in a title, say."""

from __future__ import annotations

import re
from collections.abc import Callable

from rgjax.data.records import RecordError

_LEAVE = r"(?:\b(?:ignore|disregard|forget|override|bypass)|\b(?:do not|don['’]t|never|stop) (?:follow|obey|heed)(?:ing)?|\bno attention to)"
_FEW = r"(?:[\s\"'“”]+(?!and\b|but\b)\w+){0,4}?[\s\"'“”]+"  # words of the same clause
_EARLIER = r"(?:above|previous|prior|earlier|preceding|foregoing)"
_ORDERS = r"(?:instructions?|prompts?|directions?|guidelines|rules|commands?|system messages?)"
_READ = rf"(?:{_ORDERS}|texts?|messages?|context|inputs?|sentences?|conversation)"
_WRITE = r"(?:write|say|print|output|reply|answer|respond)"
_OVER = r"(?=\s*(?:[.!?,;:)]|and\b|then\b|this\b|$))"
_ENGLISH = (
    rf"{_LEAVE}(?:{_FEW}{_EARLIER}\s+(?:\w+\s+)?{_READ}\b|{_FEW}{_READ}\s+(?:\w+\s+)?{_EARLIER}\b"
    rf"|{_FEW}(?:system|your)\s+{_ORDERS}\b|(?:\s+(?:all|any|these|those|the))?\s+(?:instructions|prompts)\b"
    rf"|\s+(?:all\s+|everything\s+|anything\s+|what(?:ever)?\s+)(?:of\s+|is\s+|was\s+|said\s+|written\s+|that\s+|the\s+|you\s+\w+\s+){{0,3}}{_EARLIER}{_OVER}"
    rf"|\s+the\s+{_EARLIER}{_OVER}"
    rf")|\b(?:ignore|disregard)\s+(?:everything|anything|all)(?:\s+else)?[\s,;]+(?:and\s+|then\s+|just\s+|only\s+){{0,2}}{_WRITE}\b"
)
_ROLES = r"\b(?:system prompt|you are (?:now (?:an? )?assistant|(?:now )?(?:an? )?(?:AI|language model|chatbot)))\b"
_BEFORE_ZH, _ORDERS_ZH = r"(?:以上|上述|上面|前面|之前|先前)", r"(?:指令|指示(?!灯)|提示词|系统提示)"
_CHINESE = (
    rf"(?:忽略|无视|忘记|忘掉|不要理会|不要遵守|不用管|别管)(?:[^。！？，,；;：\n]{{0,6}}{_BEFORE_ZH}的?(?:所有|全部|一切)?(?:{_ORDERS_ZH}|提示|要求|规则|内容|文字|对话|说明|信息)"
    rf"|(?:[^。！？，,；;：\n]{{0,4}}(?:系统|所有|全部|一切)的?)?{_ORDERS_ZH}(?!的)|(?:所有|全部|一切)?{_BEFORE_ZH}(?=[，,。；;、！!\s]|并|然后|只|直接|$))"
    r"|请(?:直接|只|仅)(?:输出|写|生成)"
)
_BEFORE = r"[\s\-–—:;,，；：|/(\"'“”]{0,20}(?:please\s+|pay\s+|请){0,2}"  # what joins it to the text
_NEGATED = re.compile(  # care for a shopper: "do not ignore the instructions"
    r"(?:(?:\bnot|n['’]t|\bnever|\bwithout|\b(?:dangerous|unsafe|risky|wrong|afford) to)\s+(?:(?:simply|just|ever|to)\s+)?"
    r"|[勿别]|不[要可得能应该]{1,2})$",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(rf"{_BEFORE}(?P<what>{_ENGLISH}|{_ROLES}|{_CHINESE})", re.IGNORECASE)


def stripped(text: str) -> str:
    """`text` up to where it begins to address the model: what follows an instruction may well be what it asks to be written."""
    found = next((one for one in _INSTRUCTION.finditer(text) if not _NEGATED.search(text[: one.start("what")])), None)
    return text[: found.start()] if found else text


def neutral(example: dict) -> tuple[dict, int]:
    """(the example with every text that the model reads stripped, how many were changed).

    Raises RecordError where nothing is left of a title.
    """
    changed = 0

    def strip(text: str) -> str:
        nonlocal changed
        found = stripped(text)
        changed += found != text
        return found

    titles = [example["item"].get("title"), *(event.get("title") for event in example.get("history") or [])]
    if gone := next((title for title in titles if title and title.strip() and not stripped(title).strip()), None):
        raise RecordError(f"the title {gone!r} is nothing but an instruction to the model; mend it, or give --injected=keep")
    own = ("reason", "rejected", "control", "require", "adapter")  # of the caller, not of a shop's suppliers
    return {name: value if name in own else _mapped(value, strip) for name, value in example.items()}, changed


def without(value):
    """A text, or a dict or list with every text in it, `stripped`."""
    return _mapped(value, stripped)


def _mapped(value, strip: Callable[[str], str]):
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, dict):
        return {name: _mapped(one, strip) for name, one in value.items()}
    return [_mapped(one, strip) for one in value] if isinstance(value, list) else value

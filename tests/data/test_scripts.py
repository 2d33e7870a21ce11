"""Ranges of characters against what Unicode calls them."""

import re
import sys
import unicodedata

from rgjax.data import scripts


def test_each_range_lies_within_the_next_and_holds_what_it_says():
    every = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) not in ("Cn", "Cs", "Co")]
    names = {c: unicodedata.name(c, "") for c in every}
    held = {which: {c for c in every if re.match(f"[{getattr(scripts, which)}]", c)} for which in ("HAN", "GLYPHS", "UNSPACED")}
    assert held["HAN"] < held["GLYPHS"] < held["UNSPACED"]
    assert held["HAN"] == {c for c, name in names.items() if name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH"))}
    assert set("。、《》あア〇") <= held["GLYPHS"] - held["HAN"] and set("，！？Ａ０") <= held["UNSPACED"] - held["GLYPHS"]
    assert not held["UNSPACED"] & set("aé5 .,'“”…—")

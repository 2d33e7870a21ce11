"""Which characters belong to scripts without spaces between words: three ranges for regular expressions ([...]), each within the next."""

from __future__ import annotations

# Chinese characters alone: what tells Chinese from English, and what is cut into characters and pairs.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# With radicals, kana and the marks among them (。、《》): one of these is a word of its own where texts are compared, whatever the language.
GLYPHS = "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# With full-width forms (，！Ａ) too: beside one of these a word has no edge, and a space is not written.
UNSPACED = GLYPHS + "\uff00-\uffef"

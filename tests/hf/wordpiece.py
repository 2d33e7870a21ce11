"""A small WordPiece tokenizer as BERT has them, and an exported BERT around it."""

import tiny
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from rgjax.data.tokenizer import Tokenizer
from rgjax.hf import export

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "warm", "lamp", "run", "##ning", "shoe", "##s", "for", "wet", "trail", "and", "long", "灯", ".", ",")


def tokenizer() -> Tokenizer:
    """[CLS] text [SEP], lower-cased, words cut into pieces."""
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *WORDS))}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.add_special_tokens(list(SPECIALS))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend, "[PAD]", "[SEP]", "[CLS]", named={"unk": "[UNK]", "sep": "[SEP]", "cls": "[CLS]", "mask": "[MASK]"})


def bert(folder, head="pooled", **more):
    """Writes a tiny random BERT with `tokenizer`; returns (factory, parameters)."""
    made = tokenizer()
    factory = tiny.factory("bert", made.vocab_size, encoder_head=head)
    params = tiny.params(factory)
    export.write(folder, params, factory.config, made, card="# Card\n", **more)
    return factory, params

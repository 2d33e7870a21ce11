"""Tokenizer: lossless on any text, the same for the same texts, and read by transformers with the same ids."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.data import slots
from rgjax.data.tokenizer import ATTRIBUTE_SLOTS, MARKERS, Tokenizer, train_bpe
from rgjax.errors import UserError

TEXTS = [
    "You liked Heat, so Ronin is for you: a taut thriller.",
    "因为您喜欢《流浪地球》，所以推荐三体，硬核科幻。",
    "Café 12,000 items; naïve 👍🏽 日本語 العربية",
] * 20
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
CONTROLS = {"style": ["short", "long"], "语气": ["热情"]}


@pytest.fixture(scope="module")
def trained():
    return train_bpe(TEXTS, 500, 8, CONTROLS)


@given(ANY)
def test_any_text_comes_back(trained, text):
    text = slots.neutral(text)
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert trained.encode_batch([text]) == [ids]
    pieces = trained.token_bytes()
    assert b"".join(pieces[i] for i in ids) == text.encode()


def test_every_byte_is_a_token_and_no_special_token_is_bytes(trained):
    pieces = trained.token_bytes()
    assert {bytes([b]) for b in range(256)} <= set(pieces)
    for token in (*MARKERS, "<item>", "<h0>", "<h7>", f"<a{ATTRIBUTE_SLOTS - 1}>", "<|style=short|>", "<|语气=热情|>"):
        assert trained.encode(token) == [trained.id_of(token)]
        assert pieces[trained.id_of(token)] == b""
    assert (trained.pad_id, trained.eos_id, trained.bos_id) == (0, 1, 2)
    assert trained.vocab_size <= 500
    assert trained.id_of("<h8>") is None


def test_a_vocabulary_has_room_for_what_it_always_holds():
    least = train_bpe([], 10_000, 8, CONTROLS).vocab_size  # no text, nothing learned
    assert train_bpe(TEXTS, least, 8, CONTROLS).vocab_size == least
    with pytest.raises(UserError, match=f"--vocab_size={least - 1} has no room for 256 bytes and {least - 256} special tokens; give {least} or more"):
        train_bpe(TEXTS, least - 1, 8, CONTROLS)


def test_the_same_texts_give_the_same_vocabulary(trained):
    again = train_bpe(iter(TEXTS), 500, 8, CONTROLS)
    assert again.backend.to_str() == trained.backend.to_str()
    assert again.checksum() == trained.checksum()
    assert train_bpe(TEXTS, 500, 9, CONTROLS).checksum() != trained.checksum()


def test_decoding_keeps_slots_and_drops_the_frame(trained):
    ids = [trained.bos_id, *trained.encode('You liked "<h0>"'), trained.eos_id, trained.pad_id]
    assert trained.decode(ids) == 'You liked "<h0>"'


def test_transformers_reads_the_saved_folder_with_the_same_ids(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert len(theirs) == trained.vocab_size
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.bos_token_id) == (0, 1, 2)
    for text in [*TEXTS[:3], 'a  b , c . "<h0>" <|style=short|>\n', " x", "<|reason|> You liked"]:
        ids = trained.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs.decode(ids) == trained.backend.decode(ids, skip_special_tokens=False)
    ours = Tokenizer.load(tmp_path)
    assert ours.encode(TEXTS[1]) == trained.encode(TEXTS[1])
    assert ours.checksum() == trained.checksum()


def write(folder, trained, **config):
    trained.save(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_foreign_folder_without_begin_or_padding_takes_the_end_token(trained, tmp_path):
    write(tmp_path, trained, eos_token={"content": "</s>"}, bos_token=None)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.pad_id) == (loaded.eos_id, loaded.eos_id)


@pytest.mark.parametrize(
    "files, ids",
    [
        ({"special_tokens_map": {"eos_token": {"content": "<|user|>"}, "pad_token": "<|item|>"}}, {"eos": 3, "bos": 3, "pad": 5}),
        ({"config": {"bos_token_id": 4, "eos_token_id": 3}}, {"eos": 3, "bos": 4, "pad": 3}),
        ({"config": {"eos_token_id": 3}, "generation_config": {"eos_token_id": [5, 4], "pad_token_id": -1}}, {"eos": 5, "bos": 5, "pad": 5}),
        ({"tokenizer_config": {"eos_token": "</s>"}, "config": {"pad_token_id": 0, "eos_token_id": 3}}, {"eos": 1, "bos": 1, "pad": 0}),
        ({"tokenizer_config": {"eos_token": "</s>", "bos_token": None}, "config": {"pad_token_id": None}}, {"eos": 1, "bos": 1, "pad": 1}),
        ({"tokenizer_config": {"do_lower_case": True}, "config": {"pad_token_id": 0}}, {"eos": 1, "bos": 1, "pad": 0}),
    ],
)
def test_special_tokens_are_found_where_a_folder_names_or_numbers_them(trained, tmp_path, files, ids):
    write(tmp_path, trained)
    for name, body in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(body))
    loaded = Tokenizer.load(tmp_path)
    assert {"eos": loaded.eos_id, "bos": loaded.bos_id, "pad": loaded.pad_id} == ids


def test_a_bert_that_names_no_token_ends_with_its_separator_and_others_are_refused(trained, tmp_path):
    write(tmp_path, trained)
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"</s>"', '"[SEP]"'), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.eos, loaded.eos_id, loaded.pad_id) == ("[SEP]", 1, 0)
    (tmp_path / "tokenizer.json").write_text(text.replace('"</s>"', '"<end>"'), encoding="utf-8")
    with pytest.raises(UserError, match="no eos token '</s>' in its vocabulary; set eos_token in tokenizer_config.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("token", [{"content": 5}, 5, ["</s>"]])
def test_a_token_that_is_no_text_is_refused(trained, tmp_path, token):
    write(tmp_path, trained, pad_token=token)
    with pytest.raises(UserError, match=r"tokenizer_config.json has pad_token=.*, which is no text; write the token itself\."):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("file", ["config", "generation_config"])
@pytest.mark.parametrize("number", [10**12, 10**30, 9999, -1, True, "1", 1.0, [["1"]]])
def test_an_end_that_is_no_id_is_refused(trained, tmp_path, file, number):
    write(tmp_path, trained)
    (tmp_path / f"{file}.json").write_text(json.dumps({"eos_token_id": number}))
    with pytest.raises(UserError, match=rf"/{file}.json has eos_token_id=.*, which is no id of its vocabulary; set eos_token in tokenizer_config"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("named", [{"eos_token": "<none>"}, {"bos_token": "<none>"}, {"pad_token": "<none>"}])
def test_a_named_token_that_the_vocabulary_lacks_is_refused(trained, tmp_path, named):
    write(tmp_path, trained, **named)
    with pytest.raises(UserError, match="token.*tokenizer_config.json"):
        Tokenizer.load(tmp_path)


def test_damaged_folders_are_refused_in_one_sentence(trained, tmp_path):
    with pytest.raises(UserError, match="no tokenizer.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="not a readable tokenizer"):
        Tokenizer.load(tmp_path)
    trained.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer_config.json"):
        Tokenizer.load(tmp_path)

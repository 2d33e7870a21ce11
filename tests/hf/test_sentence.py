"""Folders of sentence-transformers without it: their files in both forms, what is refused, the maths of pooling, and a table of vectors."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import wordpiece

from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf.sentence import Sentence
from rgjax.models.encoder import sentence_vectors
from rgjax.tasks.embed import Embedder, embed_file

TEXTS = ["A warm lamp.", "", "running shoes for wet trails, and long", "灯", "unheard words"]
OLD = [(0, "", "models.Transformer"), (1, "1_Pooling", "models.Pooling"), (2, "2_Normalize", "models.Normalize")]
NEW = [
    (0, "", "base.modules.transformer.Transformer"),
    (1, "1_Pooling", "sentence_transformer.modules.pooling.Pooling"),
    (2, "2_Normalize", "base.modules.normalize.Normalize"),
]


def put(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def describe(folder, modules=OLD, pooling=None, **files):
    """A folder's files of sentence-transformers."""
    rows = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"} for i, path, kind in modules]
    put(folder / "modules.json", rows)
    put(folder / "1_Pooling" / "config.json", pooling or {"word_embedding_dimension": 20, "pooling_mode_mean_tokens": True})
    for name, body in files.items():
        put(folder / f"{name}.json", body)


@pytest.mark.parametrize("modules", [OLD, NEW, NEW[::-1]])
@pytest.mark.parametrize(
    "pooling, wanted",
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"embedding_dimension": 20, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"embedding_dimension": 20, "pooling_mode": ["mean"]}, "mean"),
        ({"word_embedding_dimension": 20}, "mean"),
    ],
)
def test_both_forms_are_read(tmp_path, modules, pooling, wanted):
    describe(tmp_path, modules, pooling)
    assert Sentence.read(tmp_path, 40) == Sentence(wanted, True, 40)


def test_what_is_written_is_read_again(tmp_path):
    assert Sentence.read(tmp_path, 40) is None
    for i, sentence in enumerate((Sentence("mean", True, 30, True, {"prompts": {"query": "q: "}}), Sentence("cls", False, 12))):
        folder = tmp_path / str(i)
        folder.mkdir()
        sentence.write(folder, 20)
        assert Sentence.read(folder, 40) == sentence
        assert Sentence.read(folder, 10).longest == 10
        assert (folder / "2_Normalize").is_dir() == sentence.normalize


def test_the_longest_text_is_what_the_folder_the_tokenizer_or_the_model_says(tmp_path):
    describe(tmp_path, OLD[:2], tokenizer_config={"model_max_length": 10**30})
    assert Sentence.read(tmp_path, 40) == Sentence("mean", False, 40)
    put(tmp_path / "tokenizer_config.json", {"model_max_length": 25})
    assert Sentence.read(tmp_path, 40).longest == 25
    put(tmp_path / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    assert Sentence.read(tmp_path, 40) == Sentence("mean", False, 9, True)


@pytest.mark.parametrize(
    "files, words",
    [
        ({"modules": [*OLD[:2], (2, "2_Dense", "models.Dense")]}, ("'Dense'", "Transformer, Pooling, Normalize")),
        ({"modules": [*OLD, (3, "3", "models.LayerNorm")]}, ("'LayerNorm'",)),
        ({"modules": [(0, "", "../code.Transformer"), *OLD[1:]]}, ("Pooling",)),
        ({"modules": OLD[:1]}, ("in this order",)),
        ({"modules": [(0, "0_Transformer", "models.Transformer"), *OLD[1:]]}, ("in this order",)),
        *(({"modules": [OLD[0], (1, at, "models.Pooling")]}, (f"{at!r}", "no folder inside")) for at in ("../1", "..", ".", "", "/etc", 5, ["1"])),
        ({"pooling": {"pooling_mode_max_tokens": True}}, ("pooling_mode_max_tokens", "mean or cls")),
        ({"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}}, ("mean and cls",)),
        ({"pooling": {"pooling_mode": "lasttoken"}}, ("lasttoken",)),
        ({"pooling": {"pooling_mode": [["mean"]]}}, ("['mean']",)),
        ({"sentence_bert_config": {"max_seq_length": float("nan")}}, ("max_seq_length=nan",)),
        ({"sentence_bert_config": {"max_seq_length": "long"}}, ("max_seq_length='long'",)),
        ({"sentence_bert_config": {"max_seq_length": 1}}, ("max_seq_length=1",)),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, ("default_prompt_name 'query'",)),
        ({"2_Normalize/config": {"module_input_name": "token_embeddings"}}, ("'token_embeddings'",)),
    ],
)
def test_what_is_not_computed_is_named(tmp_path, files, words):
    describe(tmp_path, **files)
    if words == ("Pooling",):  # a class of nobody's
        put(tmp_path / "modules.json", [{"idx": 0, "path": "", "type": "code.Transformer"}])
        words = ("'code.Transformer'",)
    with pytest.raises(UserError) as caught:
        Sentence.read(tmp_path, 40)
    text = str(caught.value)
    assert all(word in text for word in (*words, str(tmp_path), ";")), text
    assert "\n" not in text and text.endswith(".") and ". " not in text, text


def test_damaged_modules_are_refused(tmp_path):
    for body in ({"a": 1}, [1], [{"idx": 0}]):
        put(tmp_path / "modules.json", body)
        with pytest.raises(UserError, match="modules.json is damaged"):
            Sentence.read(tmp_path, 40)


def test_pooling_by_hand():
    hidden = np.array([[[3.0, 0], [1, 8], [100, 100]], [[5, 12], [9, 9], [9, 9]]], np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]]) > 0
    np.testing.assert_allclose(sentence_vectors(hidden, mask, "mean", False), [[2, 4], [5, 12]])
    np.testing.assert_allclose(sentence_vectors(hidden, mask, "cls", False), [[3, 0], [5, 12]])
    np.testing.assert_allclose(sentence_vectors(hidden, mask, "mean", True)[1], [5 / 13, 12 / 13], rtol=1e-6)
    np.testing.assert_array_equal(sentence_vectors(hidden, mask & False, "mean", True), np.zeros((2, 2)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "mean"
    made = wordpiece.bert(folder, sentence=Sentence("mean", True, 12))
    return folder, *made


def test_a_wordpiece_tokenizer_keeps_its_frame_and_its_names(bert):
    ours = Tokenizer.load(bert[0])
    assert ours.named.items() >= {"unk": "[UNK]", "sep": "[SEP]", "cls": "[CLS]", "mask": "[MASK]"}.items()
    assert ours.encode_framed(["A warm LAMP", "long " * 20], 6) == [[2, 5, 6, 7, 3], [2, 16, 16, 16, 16, 3]]
    assert ours.encode("a warm lamp " * 9) == [5, 6, 7] * 9  # neither framed nor cut
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(bert[0])
    assert theirs(TEXTS, truncation=True, max_length=12)["input_ids"] == ours.encode_framed(TEXTS, 12)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    assert {name: getattr(theirs, name) for name in names} == names


def test_a_text_has_the_vector_of_its_own_states(bert):
    folder, factory, params = bert
    embedder = Embedder.open(str(folder))
    together = embedder.embed(TEXTS)
    assert together.dtype == np.float32 and together.shape == (5, 20)
    for text, vector in zip(TEXTS, together, strict=True):
        ids = Tokenizer.load(folder).encode_framed([text], 12)[0]
        hidden = tiny.hidden(factory, params, tiny.row([ids], 12))[0, : len(ids)]
        mean = hidden.astype(np.float64).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(embedder.embed(TEXTS, batch=2), together, atol=1e-6)
    assert np.abs(Embedder.open(str(folder), "cls").embed(TEXTS) - together).max() > 0.05


def test_a_table_of_texts_becomes_a_table_of_vectors(bert, tmp_path):
    embedder, source, target = Embedder.open(str(bert[0])), tmp_path / "in.jsonl", tmp_path / "out.parquet"
    source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    shown = []
    done = embed_file(embedder, str(source), str(target), 2, False, lambda *at: shown.append(at))
    table = pq.read_table(target)
    assert str(table.schema.field("id").type) == "string" and str(table.schema.field("vector").type.value_type) == "float"
    assert table["id"].to_pylist() == list("01234") and shown == [(5, 5)] and (done["vectors"], done["width"]) == (5, 20)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), embedder.embed(TEXTS, 2))
    with pytest.raises(UserError, match="--overwrite"):
        embed_file(embedder, str(source), str(target), 2, False, print)
    for line, words in (('{"id": 1, "text": ""}', "row 6: the id '1' comes a second time"), ('{"id": "x", "text": null}', "row 6: id must be")):
        (tmp_path / "bad.jsonl").write_text(source.read_text() + line + "\n")
        with pytest.raises(UserError, match=words):
            embed_file(embedder, str(tmp_path / "bad.jsonl"), str(tmp_path / "no.parquet"), 2, False, print)
    assert {p.name for p in tmp_path.iterdir()} == {"in.jsonl", "bad.jsonl", "out.parquet"}


def test_what_makes_no_vectors_is_refused(exported, tmp_path):
    with pytest.raises(UserError, match="is a llama, which makes no vectors"):
        Embedder.open(str(exported("llama")[2]))
    wordpiece.bert(tmp_path / "plain")
    with pytest.raises(UserError, match="give --pooling=mean or --pooling=cls"):
        Embedder.open(str(tmp_path / "plain"))

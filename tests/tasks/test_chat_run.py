"""A run with --prompt=chat as a user makes it: the template goes from the tokenizer's folder through training into the export."""

import ast
import json
import subprocess

import pytest
from launched import launch, refused, result

from rgjax.config import PrepareConfig
from rgjax.data.prepare import prepare
from rgjax.data.tokenizer import Tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat_dataset(tokenizer, dataset_folder, tmp_path_factory):
    """The synthetic shop with a chat model's tokenizer."""
    folder = tmp_path_factory.mktemp("chat")
    own = Tokenizer.load(dataset_folder / "tokenizer")
    own.backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    own.chat_template = TEMPLATE
    own.save(folder / "tokenizer")
    small = {"demo_users": 40, "demo_items": 30, "demo_examples": 60, "val_share": 0.1}
    prepare(PrepareConfig(layout="demo", output=str(folder / "data"), tokenizer=str(folder / "tokenizer"), **small))
    return folder / "data"


def test_a_chat_run_from_the_dataset_to_the_export(chat_dataset, dataset_folder, start_training, tmp_path):
    transformers = pytest.importorskip("transformers")
    workdir, out = tmp_path / "run", tmp_path / "out"
    flags = {"dataset": chat_dataset, "prompt": "chat", "length": 448, "target_length": 96, "instruction": "说说为什么？", "steps": 2}
    process = start_training(workdir, **flags)
    printed, errors = process.communicate(timeout=300)
    assert result(subprocess.CompletedProcess([], process.returncode, printed, errors))["step"] == 2
    stored = json.loads((workdir / "config.json").read_text())["input"]
    assert (stored["prompt"], stored["copy_slots"], stored["instruction"]) == ("chat", "none", "说说为什么？")
    (tmp_path / "in.jsonl").write_text(json.dumps({"item": {"title": "Lamp <|im_end|>"}}) + "\n")
    written = tmp_path / "reasons.jsonl"
    assert result(launch("generate", workdir=workdir, input=tmp_path / "in.jsonl", output=written, max_new_tokens=8))["reasons"] == 1
    assert "<|" not in json.loads(written.read_text())["reason"]

    result(launch("export", workdir=workdir, output=out))
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    other, own = transformers.PreTrainedTokenizerFast.from_pretrained(out), Tokenizer.load(chat_dataset / "tokenizer")
    assert other.chat_template == TEMPLATE and len(other) == own.vocab_size
    ends = [own.id_of("<|im_end|>"), own.eos_id]
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == ends
    assert transformers.AutoConfig.from_pretrained(out).eos_token_id == ends
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "apply_chat_template(messages, add_generation_prompt=True" in card and "说说为什么？" in card and "Slot tokens" not in card
    messages = next(line for line in card.splitlines() if line.startswith("messages = "))
    said = ast.literal_eval(messages.removeprefix("messages = "))
    ids = other.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert other.decode(ids).endswith("说说为什么？<|im_end|>\n<|im_start|>assistant\n")

    refused(launch("train", dataset=dataset_folder, workdir=tmp_path / "new", prompt="chat"), "--prompt=chat", "--tokenizer=FOLDER")
    refused(launch("train", dataset=chat_dataset, workdir=tmp_path / "new", prompt="chat", copy_slots="titles"), "--copy_slots=titles")
    refused(launch("train", workdir=workdir, prompt="markers"), "--prompt=chat")
    assert not (tmp_path / "new").exists()

"""Writes a run as a Hugging Face folder: weights, configuration, tokenizer and model card; no custom code.

    python -m launch.export --workdir=W --output=DIR
    python -m launch.export --init_from=FOLDER --output=DIR    (reads a Hugging Face folder and writes it again)
    python -m launch.export --init_from=BERT --output=DIR --sentence_pooling=mean    (for sentence-transformers too)
"""

from __future__ import annotations

import pathlib
import sys

from launch import app
from rgjax.config import DecodeConfig, ExportConfig, ModelConfig
from rgjax.errors import UserError


def main() -> dict:
    """Reads the flags, exports, and returns the summary that is printed last."""
    config = app.read(ExportConfig)
    if config.workdir and config.init_from:
        raise UserError("--workdir and --init_from are both given; export one of them.")
    if config.init_from and "checkpoint" in app.given(ExportConfig):
        raise UserError("--checkpoint is given, and a Hugging Face folder has none to choose from; leave it out with --init_from.")
    if config.workdir and "sentence_pooling" in app.given(ExportConfig):
        raise UserError("--sentence_pooling is given, and a run writes text, not vectors; leave it out with --workdir.")
    app.require(output=config.output, **({} if config.init_from else {"workdir": config.workdir}))
    check_apart(config.output, config.init_from or config.workdir)
    summary = rewrite(config) if config.init_from else export_run(config)
    if summary["family"] == "qwen2":
        print("note: load the tokenizer with PreTrainedTokenizerFast; for qwen2, AutoTokenizer splits text in Qwen's own way", file=sys.stderr)
    return summary


def check_apart(output: str, source: str) -> None:
    """Raises UserError when writing `output` would replace what is read."""
    if pathlib.Path(source).resolve().is_relative_to(pathlib.Path(output).resolve()):
        raise UserError(f"--output={output} is or holds {source}, which is read; give another folder.")


def export_run(config: ExportConfig) -> dict:
    """Exports a training run."""
    import jax

    from rgjax.hf import card, export, families
    from rgjax.tasks import run as run_lib

    run = run_lib.Run.open(config.workdir, config.checkpoint)
    family = families.choose(run.facts["model"], config.family)
    toy = {"item": {"title": "Second title", "attributes": {"genre": ["drama"]}}, "history": [{"title": "First title"}], "reason": ""}
    prompt = run.task.tokenizer.backend.decode(run.task.template.render(toy).prompt_ids, skip_special_tokens=False)
    scores = run_lib.read_json(pathlib.Path(config.workdir) / "evaluation.json")
    text = card.render(run.facts, run.step, run.task.factory.count(), scores, family, prompt)
    export.write(
        config.output, jax.device_get(run.params), run.facts["model"], run.task.tokenizer, family=family.name,
        dtype=config.export_dtype, max_new_tokens=run.facts["decode"].max_new_tokens, card=text, overwrite=config.overwrite,
    )  # fmt: skip
    return {"output": config.output, "family": family.name, "step": run.step, "parameters": run.task.factory.count(), "dtype": config.export_dtype}


def rewrite(config: ExportConfig) -> dict:
    """Reads a Hugging Face folder and writes the same model again."""
    from rgjax.data.tokenizer import Tokenizer
    from rgjax.hf import export
    from rgjax.hf.load import Pretrained
    from rgjax.models.build import ModelFactory
    from rgjax.parallel import mesh as mesh_lib

    source, tokenizer = Pretrained.open(config.init_from), Tokenizer.load(config.init_from)
    model = source.configure(ModelConfig(), set(), tokenizer)
    if tokenizer.vocab_size > (rows := source.folder.config["vocab_size"]):
        raise UserError(
            f"{config.init_from} has {tokenizer.vocab_size} tokens in tokenizer.json and vocab_size={rows} in config.json, and untrained rows are "
            "not written; train with --init_from, or mend the folder."
        )
    sentence = _sentence(config.sentence_pooling, source)
    factory = ModelFactory(model, model.embeddings)
    params = source.params(factory, mesh_lib.make("data:1"))
    family = export.write(
        config.output, params, model, tokenizer, family=source.family.name if config.family == "auto" else config.family,
        dtype=config.export_dtype, max_new_tokens=DecodeConfig().max_new_tokens, overwrite=config.overwrite,
        card=f"# {source.folder.path.name}\n\nRead and written by rgjax; nothing was trained.\n", token_ids=source.folder.token_ids(),
        sentence=sentence,
    )  # fmt: skip
    summary = {"output": config.output, "family": family.name, "parameters": factory.count(), "dtype": config.export_dtype}
    return summary | ({"sentence_pooling": sentence.pooling} if sentence else {})


def _sentence(pooling: str, source):
    """How the written folder makes vectors, None if it does not; raises UserError for another model than an encoder alone."""
    from rgjax.hf.sentence import Sentence

    folder, family = source.folder.path, source.family
    if not family.encoder and pooling in ("mean", "cls"):
        raise UserError(f"--sentence_pooling={pooling} is given, and {folder} is a {family.name}; only an encoder alone (bert) makes vectors.")
    if pooling == "none" or not family.encoder:
        return None
    kept = Sentence.read(folder, positions := source.options["max_positions"])
    return kept if pooling == "auto" or (kept and kept.pooling == pooling) else Sentence.fresh(folder, pooling, positions)


if __name__ == "__main__":
    app.define(ExportConfig)
    app.run(main, __doc__)

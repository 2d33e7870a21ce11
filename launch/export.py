"""Writes a run as a Hugging Face folder: weights, configuration, tokenizer and model card; no custom code.

    python -m launch.export --workdir=W --output=DIR
    python -m launch.export --init_from=FOLDER --output=DIR    (reads a Hugging Face folder and writes it again)
    python -m launch.export --init_from=FOLDER --adapter=ADAPTER --output=DIR    (with an adapter merged into it)
    python -m launch.export --workdir=W --adapter_only --output=DIR    (a run's adapter alone, as PEFT or AdapterHub load it)
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
    if config.adapter and not config.init_from:
        raise UserError("--adapter is merged into --init_from, which is missing; a run's own adapter needs no flag.")
    if config.adapter_only and config.init_from:
        raise UserError("--adapter_only writes a run's adapter; give --workdir instead of --init_from.")
    if config.adapter_only and config.export_dtype != "float32":
        raise UserError(f"--export_dtype={config.export_dtype} is for a model, and --adapter_only writes an adapter, in float32; leave one out.")
    if config.workdir and "sentence_pooling" in app.given(ExportConfig):
        raise UserError("--sentence_pooling is given, and a run writes text, not vectors; leave it out with --workdir.")
    app.require(output=config.output, **({} if config.init_from else {"workdir": config.workdir}))
    app.check_apart(config.output, config.init_from, config.workdir, config.adapter, config.base)
    summary = rewrite(config) if config.init_from else export_run(config)
    if summary["family"] == "qwen2":
        print("note: load the tokenizer with PreTrainedTokenizerFast; for qwen2, AutoTokenizer splits text in Qwen's own way", file=sys.stderr)
    return summary


def export_run(config: ExportConfig) -> dict:
    """Exports a training run: the model, with an adapter merged into it, or the adapter alone."""
    import jax

    from rgjax.hf import card, export
    from rgjax.tasks import run as run_lib
    from rgjax.train import workdir

    run = run_lib.Run.open(config.workdir, config.checkpoint, config.base)
    app.check_apart(config.output, run.facts["train"].init_from)
    family, factory = run_lib.family_of(run, config.family), run.task.factory
    toy = {"item": {"title": "Second title", "attributes": {"genre": ["drama"]}}, "history": [{"title": "First title"}], "reason": ""}
    prompt, ends = run.task.template.shown(toy), run.task.template.ends
    scores = run_lib.read_json(pathlib.Path(config.workdir) / "evaluation.json")
    text = card.render(run.facts, run.step, factory.count(), scores, family, prompt, alone=config.adapter_only)
    summary = {"output": config.output, "family": family.name, "step": run.step, "parameters": factory.count(), "dtype": "float32"}
    notes = {"control_codes.json": run.codes_written()} if run.controls else {}
    if config.adapter_only:
        values, base = run.adapter_alone(), run.base or run.facts["train"].init_from
        if workdir.is_run(base):
            print(f"note: {base} is a run, which PEFT can't load; export it too, and load the adapter on that folder", file=sys.stderr)
        tokenizer = run.task.tokenizer
        export.write_adapter(
            config.output, factory, jax.device_get(values), tokenizer, family=family, base=base, card=text, overwrite=config.overwrite, notes=notes
        )
        return summary | {"adapter": run.facts["adapter"].adapter, "parameters": sum(a.size for a in jax.tree.leaves(values))}
    export.write(
        config.output, jax.device_get(run.own()), run.facts["model"], run.task.tokenizer, family=family.name,
        dtype=config.export_dtype, max_new_tokens=run.facts["decode"].max_new_tokens, card=text, overwrite=config.overwrite,
        token_ids={"eos_token_id": list(ends)} if len(ends) > 1 else {}, notes=notes,
    )  # fmt: skip
    return summary | {"parameters": factory.base.count(), "dtype": config.export_dtype}


def rewrite(config: ExportConfig) -> dict:
    """Reads a Hugging Face folder and writes the same model again, with an adapter merged into it if one is given."""
    from rgjax.data.tokenizer import Tokenizer
    from rgjax.hf import adapter, export
    from rgjax.hf.load import Pretrained
    from rgjax.models import merge
    from rgjax.models.adapted import AdaptedFactory
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
    options, values = adapter.read(config.adapter, factory, source.family) if config.adapter else (None, None)
    params, done = source.params(factory, mesh_lib.make("data:1")), "nothing was trained"
    if config.adapter:
        params = merge.merged(AdaptedFactory(factory, options), {**params, "adapter": values})
        done = f"the adapter {config.adapter} was merged into it"
    family = export.write(
        config.output, params, model, tokenizer, family=source.family.name if config.family == "auto" else config.family,
        dtype=config.export_dtype, max_new_tokens=DecodeConfig().max_new_tokens, overwrite=config.overwrite,
        card=f"# {source.folder.path.name}\n\nRead and written by rgjax; {done}.\n", token_ids=source.folder.token_ids(),
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

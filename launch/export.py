"""Writes a run as a Hugging Face folder: weights, configuration, tokenizer and model card; no custom code.

    python -m launch.export --workdir=W --output=DIR
"""

from __future__ import annotations

from launch import app
from rgjax.config import ExportConfig


def main() -> dict:
    """Reads the flags, exports, and returns the summary that is printed last."""
    config = app.read(ExportConfig)
    app.require(workdir=config.workdir, output=config.output)

    import pathlib

    import jax

    from rgjax.hf import card, export
    from rgjax.tasks import run as run_lib

    run = run_lib.Run.open(config.workdir, config.checkpoint)
    family = export.choose(run.facts["model"], config.family)
    toy = {"item": {"title": "Second title", "attributes": {"genre": ["drama"]}}, "history": [{"title": "First title"}], "reason": ""}
    prompt = run.task.tokenizer.backend.decode(run.task.template.render(toy).prompt_ids, skip_special_tokens=False)
    scores = run_lib.read_json(pathlib.Path(config.workdir) / "evaluation.json")
    text = card.render(run.facts, run.step, run.task.factory.count(), scores, family, prompt)
    export.write(
        config.output, jax.device_get(run.params), run.facts["model"], run.task.tokenizer, family=family.name,
        dtype=config.export_dtype, max_new_tokens=run.facts["decode"].max_new_tokens, card=text, overwrite=config.overwrite,
    )  # fmt: skip
    return {"output": config.output, "family": family.name, "step": run.step, "parameters": run.task.factory.count(), "dtype": config.export_dtype}


if __name__ == "__main__":
    app.define(ExportConfig)
    app.run(main, __doc__)

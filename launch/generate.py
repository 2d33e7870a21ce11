"""Writes a reason for each input line, in input order; an interrupted file is continued by the same command.

    python -m launch.generate --workdir=W --input=IN.jsonl --output=OUT.jsonl

Inputs are examples without reasons; only "item" is required. Decoding flags that are left out are the run's own.
"""

from __future__ import annotations

from launch import app
from rgjax.config import DecodeConfig, GenerateConfig, RewardConfig


def main() -> dict:
    """Reads the flags, writes the reasons, and returns the summary that is printed last."""
    config, given, reward = app.read(GenerateConfig), app.read(DecodeConfig), app.read(RewardConfig)
    app.require(workdir=config.workdir, input=config.input, output=config.output)

    from rgjax.tasks import adapters, decoding, rewards, streaming
    from rgjax.tasks.run import Run

    run = Run.open(config.workdir, config.checkpoint, config.base).kept(config.weights)
    decode = decoding.configured(run.facts, given, app.given(DecodeConfig))
    run = rewards.choosing(run, decode.method, reward)
    override = decoding.parse_control(config.control, run.controls)
    decoding.check_lengths(run.facts, decode, override)
    writer = adapters.Writers(run, decode, adapters.parse(config.adapters))
    settings = {"workdir": config.workdir, "step": run.step, "decode": decoding.facts(decode), "control": override, "adapters": config.adapters}
    settings |= {"weights": config.weights} if config.weights != "float" else {}
    settings |= {"rewards": reward.rewards, "discriminator_from": reward.discriminator_from} if reward.rewards else {}
    settings |= {"injected": config.injected} if config.injected != "strip" else {}
    with app.progress("writing") as show:
        return streaming.generate_file(
            config.input, config.output, writer.write, settings=settings, controls=run.controls, override=override,
            chunk=max(256, 4 * writer.rows), overwrite=config.overwrite, progress=show, adapters=writer.names, required=writer.required,
            strip=config.injected == "strip",
        )  # fmt: skip


if __name__ == "__main__":
    app.define(GenerateConfig, DecodeConfig, RewardConfig)
    app.run(main, __doc__)

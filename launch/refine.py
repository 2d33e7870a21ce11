"""Filtered fine-tuning of a run: it writes, a filter keeps what is good, it learns from that; rounds of it, each told beside what was before.

    python -m launch.refine --init_from=W --output=FOLDER --rounds=3 --draws=4 --rewards=codes=0.5,repetition=0.95 --temperature=1
    python -m launch.refine --init_from=GAN --plain=W --output=FOLDER ...    (beside a plain run through the same filter)

Numbers in --rewards are the least that passes; what was kept already never passes twice. FOLDER/tuned/round_R/run is a run like any other,
refine.json has the figures. Interrupted, it goes on with the same command; with a larger --rounds too. Decoding flags left out are the run's.
"""

from __future__ import annotations

from launch import app, pages
from rgjax.config import DecodeConfig, OptimizerConfig, RefineConfig, RewardConfig


def main() -> dict:
    """Reads the flags, refines, prints a table, and returns the summary that is printed last."""
    config, given = app.read(RefineConfig), app.read(DecodeConfig)
    app.require(init_from=config.init_from, output=config.output)
    optimizer = app.read(OptimizerConfig)
    from rgjax.tasks import refine

    app.check_apart(config.output, config.init_from, config.plain)
    with app.progress("written") as show:
        result, table = refine.refine(config, app.read(RewardConfig), optimizer, given, app.given(DecodeConfig), show)
    if result["synthetic"]:
        print("The data is synthetic: the figures show that the machinery works, not how well it would write for real shoppers.")
    print(table)
    return result


if __name__ == "__main__":
    pages.begin_again()
    app.define(RefineConfig, RewardConfig, OptimizerConfig, DecodeConfig)
    app.run(main, __doc__)

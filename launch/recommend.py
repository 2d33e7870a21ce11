"""Recommends items to users by a model of behaviour, each with its score parts, the evidence for it and a reason.

    python -m launch.recommend --workdir=W --input=USERS.jsonl --top=10 --output=OUT.jsonl
    python -m launch.recommend --workdir=W --input=USERS.jsonl --reasons=R --output=OUT.jsonl    (R: a run that writes reasons)

Input lines name a user of the shop, or bring a history of their own, or both: new events count at once, without training. A reason that is
empty, quotes what was not there, or says the same twice is replaced by a template, and is marked so. Decoding flags that are left out are
those of --reasons.
"""

from __future__ import annotations

from launch import app
from rgjax.config import DecodeConfig, RecommendConfig


def main() -> dict:
    """Reads the flags, recommends, prints a few users, and returns the summary that is printed last."""
    config, decode = app.read(RecommendConfig), app.read(DecodeConfig)
    app.require(workdir=config.workdir, input=config.input, output=config.output)

    from rgjax.tasks import recommend

    with app.progress("recommending") as show:
        result, table = recommend.recommend(config, (decode, app.given(DecodeConfig)), show)
    print(table)
    return result


if __name__ == "__main__":
    app.define(RecommendConfig, DecodeConfig)
    app.run(main, __doc__)

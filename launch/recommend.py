"""Recommends items to users by a model of behaviour, each with its score parts, the evidence for it and a reason.

    python -m launch.recommend --workdir=W --input=USERS.jsonl --top=10 --output=OUT.jsonl
    python -m launch.recommend --workdir=W --input=USERS.jsonl --reasons=R --output=OUT.jsonl    (R: a run that writes reasons)
    python -m launch.recommend --workdir=B --offer=build --size=3 --budget=80 --input=ASKED.jsonl --output=OUT.jsonl    (B: of bundles)

Input lines name a user of the shop, or bring a history of their own, or both: new events count at once, without training. A reason that is
empty, quotes what was not there, or says the same twice is replaced by a template, and is marked so. Decoding flags that are left out are
those of --reasons.
"""

from __future__ import annotations

from launch import app
from rgjax.config import DecodeConfig, OfferConfig, RecommendConfig
from rgjax.errors import UserError


def main() -> dict:
    """Reads the flags, recommends, prints a few users, and returns the summary that is printed last."""
    config, decode, offer = app.read(RecommendConfig), app.read(DecodeConfig), app.read(OfferConfig)
    app.require(workdir=config.workdir, input=config.input, output=config.output)

    from rgjax.tasks.shop import bundle, offers, recommend
    from rgjax.train import workdir

    bundles = workdir.read(config.workdir).get("task") == bundle.NAME
    if bundles:
        offers.check_flags(app.given(RecommendConfig) | app.given(OfferConfig), offer.offer)
    elif surplus := sorted(app.given(OfferConfig)):
        raise UserError(f"--{surplus[0]} is for a run of --task=bundle, which {config.workdir} is not; leave it out.")
    with app.progress("recommending") as show:
        if bundles:
            result, table = offers.recommend(config, offer, (decode, app.given(DecodeConfig)), show)
        else:
            result, table = recommend.recommend(config, (decode, app.given(DecodeConfig)), show)
    print(table)
    return result


if __name__ == "__main__":
    app.define(RecommendConfig, OfferConfig, DecodeConfig)
    app.run(main, __doc__)

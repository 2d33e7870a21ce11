"""Scores a run on a split, beside floors and with 95 % intervals; writes evaluation.json and outputs.jsonl.

    python -m launch.evaluate --workdir=W --split=val
    python -m launch.evaluate --workdir=W --split=val --outputs=MINE.jsonl --against=THEIRS.jsonl
    python -m launch.evaluate --workdir=W --ablate_vectors    (whether precomputed vectors help: writes ablation.json)
    python -m launch.evaluate --workdir=W --split=val --report=control    (whether control codes are obeyed: writes control.json and control.html)
    python -m launch.evaluate --workdir=W --split=val --report=tampering    (whether it notices changed reasons: writes tampering.json)
    python -m launch.evaluate --workdir=W --split=val --earlier=DATASET,DATASET    (what the run has forgotten of earlier tasks)

    python -m launch.evaluate --workdir=W --split=test --models=popularity,markov --hybrid    (a run of --task=behaviour)
    python -m launch.evaluate --flagfile=configs/ml1m_floors.cfg --source=FOLDER    (recommenders fitted on the spot, no run needed)
    python -m launch.evaluate --dataset=SHOP --measure=demand    (forecasts of weekly demand; or basket, bundles, triples)
    python -m launch.evaluate --flagfile=configs/oracle.cfg --rows=mle,constant_reward --seeds=1    (text GANs, against a known truth)
    python -m launch.evaluate --flagfile=configs/captions.cfg --captions=FOLDER --seeds=1    (text GANs, against real texts)

A run of --task=behaviour is measured by where it ranks what was held out, beside --models. Decoding flags that are left out are the run's own.
"""

from __future__ import annotations

from launch import app
from rgjax.config import (
    AdversarialConfig,
    BenchConfig,
    CaptionsConfig,
    DecodeConfig,
    DiscriminatorConfig,
    EvaluateConfig,
    OracleConfig,
    RankingConfig,
    RewardConfig,
    ShopConfig,
)
from rgjax.errors import UserError

OF_BENCHMARKS = (BenchConfig, AdversarialConfig, DiscriminatorConfig)
OF_TEXTS = {"report", "judge_split", "weights", "limit", "base", "outputs", "ablate_vectors", "against", "earlier", "before", "max_words"}


def check(config: EvaluateConfig, measure: str, ranks: bool, writes: bool) -> None:
    """Raises UserError for a flag that would mean nothing: `ranks` says that items are ranked, `writes` that a run writes reasons."""
    evaluate, shop, ranking = app.given(EvaluateConfig), app.given(ShopConfig), app.given(RankingConfig)
    what = config.workdir or "a shop without a run"
    if config.workdir:
        _refuse((shop - {"source"}) | (ranking & {"measure"}), "is for a shop without a run, and --workdir has its own; leave one of them out.")
    else:
        _refuse(evaluate & {"checkpoint"}, "chooses among the checkpoints of a run, and there is none; give its --workdir, or leave it out.")
    if writes:
        _refuse(shop | ranking, f"is for rankings, and {what} writes reasons; leave it out.")
        return
    _refuse((evaluate & OF_TEXTS) | app.given(DecodeConfig), f"is for written reasons, and {what} has none; leave it out.")
    if not ranks:
        unused = (shop - {"source", "layout"}) | (ranking - {"measure"}) | (evaluate & {"resamples"})
        unused |= evaluate & {"split"} if measure != "bundles" else set()
        _refuse(unused, f"is for rankings, and --measure={measure} measures none; leave one of them out.")


def check_report(report: str) -> None:
    """Raises UserError for a flag that this report of a run that writes reasons does not read."""
    if report != "control":
        _refuse(app.given(EvaluateConfig) & {"judge_split"}, "is for --report=control; add that, or leave it out.")
    if report != "scores":
        _refuse(app.given(EvaluateConfig) & {"max_words"}, f"is for --report=scores, and --report={report} counts no lengths; leave one of them out.")


def _refuse(names: set[str], why: str) -> None:
    if names:
        raise UserError(f"--{min(names)} {why}")


def benchmark(config: EvaluateConfig, which: str) -> tuple[dict, str]:
    """(figures, table) of the benchmark 'oracle' or 'captions' of text GANs, without a run or dataset; raises UserError for flags of others."""
    own, other = (OracleConfig, CaptionsConfig) if which == "oracle" else (CaptionsConfig, OracleConfig)
    others = app.given(EvaluateConfig) - {"output"}
    others |= set().union(*map(app.given, (DecodeConfig, ShopConfig, RankingConfig, RewardConfig, other)))
    _refuse(others, f"has no place in the benchmark of --{which}; leave one of them out.")
    _refuse(app.given(AdversarialConfig) & {"estimator", "gan_loss", "reward"}, "is what a row's name decides; choose --rows, and leave it out.")
    from rgjax.tasks.text_gans import captions_report, oracle_report

    evaluate = {"oracle": oracle_report, "captions": captions_report}[which].evaluate
    with app.progress("measured") as show:
        return evaluate(*map(app.read, (*OF_BENCHMARKS, own)), config.output, show)


def of_shop(config: EvaluateConfig, task: str) -> tuple[dict, str]:
    """(figures, table) of a run of --task=behaviour or bundle, or of what is fitted on a shop on the spot."""
    from rgjax.tasks.shop import bundle_report, ranking, shop_report

    shop, ranks = app.read(ShopConfig), app.read(RankingConfig)
    _refuse(app.given(RewardConfig), "is for written reasons; leave it out.")
    if task == "bundle":
        bundle_report.check_flags(app.given(EvaluateConfig) | app.given(ShopConfig) | app.given(RankingConfig) | app.given(DecodeConfig))
        return bundle_report.evaluate(config, shop.source, ranks)
    check(config, ranks.measure, ranks.measure == "ranking", False)
    if not config.workdir and ranks.measure != "ranking":
        return shop_report.report(ranks.measure, config, shop)
    with app.progress("measuring") as show:
        return ranking.evaluate(config, shop, ranks, show)


def of_reasons(config: EvaluateConfig) -> tuple[dict, str]:
    """(figures, table) of a run that writes reasons, by --report."""
    from rgjax.report import control as control_page
    from rgjax.tasks import decoding
    from rgjax.tasks.evaluation import ablation, control, forgetting, measure, tampering
    from rgjax.train import workdir

    check(config, "", False, True)
    check_report(config.report)
    if config.ablate_vectors and config.report == "scores":
        with app.progress("measuring") as show:
            return ablation.vectors(config, show)
    decode = decoding.configured(workdir.read(config.workdir), app.read(DecodeConfig), app.given(DecodeConfig))
    reports = {"control": control.report, "tampering": tampering.report, "scores": forgetting.report if config.earlier else measure.evaluate}
    chooses = reports[config.report] in (control.report, measure.evaluate)
    if not chooses:
        _refuse(app.given(RewardConfig), "chooses among candidates, which this report does not; leave it out.")
    with app.progress("writing") as show:
        result, table = reports[config.report](config, decode, show, *([app.read(RewardConfig)] if chooses else []))
    if config.report == "control":
        result |= {"page": control_page.write(result)}
    if result["synthetic"]:
        print("The data is synthetic: the scores show that the machinery works, not how well it would write for real shoppers.")
    return result, table


def main() -> dict:
    """Reads the flags, measures, prints the table, and returns the summary that is printed last."""
    config, shop = app.read(EvaluateConfig), app.read(ShopConfig)
    if which := "oracle" if app.read(OracleConfig).oracle else "captions" if app.read(CaptionsConfig).captions else "":
        result, table = benchmark(config, which)
        print(table)
        return result
    unused = set().union(*(app.given(cls) for cls in (*OF_BENCHMARKS, OracleConfig, CaptionsConfig)))
    _refuse(unused, "is for benchmarks of text GANs; add --oracle=drawn or --captions=FOLDER, or leave it out.")
    on_the_spot = not config.workdir and bool(shop.source or config.dataset)
    if not on_the_spot:
        app.require(workdir=config.workdir)
    from rgjax.train import workdir

    task = "behaviour" if on_the_spot else workdir.read(config.workdir).get("task", "reason")
    result, table = of_shop(config, task) if task in ("behaviour", "bundle") else of_reasons(config)
    print(table)
    return result


if __name__ == "__main__":
    app.define(EvaluateConfig, DecodeConfig, RewardConfig, ShopConfig, RankingConfig, *OF_BENCHMARKS, OracleConfig, CaptionsConfig)
    app.run(main, __doc__)

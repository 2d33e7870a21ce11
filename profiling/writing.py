"""Size, speed and scores of runs as they write: a student beside its teacher, a run in float32, bfloat16 and int8.

    python -m profiling.writing --workdirs=TEACHER,STUDENT
    python -m profiling.writing --workdirs=W --kinds=float32,bfloat16,int8

For each run and kind of weights: parameters and their bytes, perplexity of the references and ROUGE-L of the first --examples of the split,
and tokens written a second (end tokens count; greedy unless --method says otherwise). Programs are compiled before the clock starts and
timed in turn, --rounds of each; the figure is the median. Scores are of the whole inputs, not of what fits the clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time

from absl import flags

from launch import app
from rgjax.config import DecodeConfig

flags.DEFINE_list("workdirs", [], "Runs to compare.")
flags.DEFINE_list("kinds", ["float32"], "How each is kept and computed: float32, bfloat16 (computed so too), int8.")
flags.DEFINE_string("dataset", "", "Dataset to write for; empty takes the first run's own.")
flags.DEFINE_enum("split", "val", ["val", "test"], "Split to write for.")
flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint of each run: the best on validation, or the last.")
flags.DEFINE_integer("examples", 64, "Inputs that are written for.", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "Times that each writes for all of them.", lower_bound=1)


def kept(run, kind: str):
    """The run with weights of this kind; bfloat16 is what is stored and what is computed."""
    if kind != "bfloat16":
        return run.kept("int8" if kind == "int8" else "float")

    import jax
    import jax.numpy as jnp

    from rgjax.tasks.reason import ReasonTask

    facts = run.facts
    task = ReasonTask(run.task.tokenizer, facts["input"], dataclasses.replace(facts["model"], dtype="bfloat16"), facts["adapter"])
    return dataclasses.replace(run, task=task, params=jax.tree.map(lambda a: a.astype(jnp.bfloat16), run.params))


def measured(run, dataset, examples: list[dict], decode: DecodeConfig) -> tuple[dict, object]:
    """(figures but for the speed, a call that writes once and returns the tokens written); it has been called before."""
    import jax

    from rgjax.metrics import suite

    writer = run.writer(decode)
    rendered = [run.task.template.render({**e, "reason": ""}) for e in examples]
    call = lambda: sum(len(h[0].ids) + h[0].ended for h in writer.writer.write(rendered))
    began = time.perf_counter()
    call()
    seconds, reasons = time.perf_counter() - began, [r[0] for r in writer.write(examples)]
    leaves = jax.tree.leaves(run.params)
    scores = suite.evaluate_reasons(examples, reasons, max_words=75, resamples=100)
    figures = {
        "parameters": run.task.factory.count(), "bytes": sum(a.nbytes for a in leaves), "first_call_seconds": round(seconds, 2),
        "perplexity": run.perplexity(dataset, flags.FLAGS.split)["perplexity"],
    }  # fmt: skip
    figures |= {name: score["value"] for name, score in scores.items() if name.startswith("rouge_l")}
    return figures, call


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the figures, printed last."""
    decode, chosen = app.read(DecodeConfig), flags.FLAGS
    app.require(workdirs=chosen.workdirs)

    from rgjax.tasks import teach
    from rgjax.tasks.run import Run

    runs = {folder: Run.open(folder, chosen.checkpoint) for folder in chosen.workdirs}
    dataset = teach.open_dataset(next(iter(runs.values())), chosen.dataset)
    examples = list(itertools.islice(dataset.examples(chosen.split), chosen.examples))
    found, calls = {}, {}
    for (folder, run), kind in itertools.product(runs.items(), chosen.kinds):
        name = f"{folder} {kind}"
        found[name], calls[name] = measured(kept(run, kind), dataset, examples, decode)
    speeds = {name: [] for name in calls}
    for _, (name, call) in itertools.product(range(chosen.rounds), calls.items()):
        began = time.perf_counter()
        tokens = call()
        speeds[name].append(tokens / (time.perf_counter() - began))
    for name, figures in found.items():
        figures["tokens_per_second"] = round(statistics.median(speeds[name]), 1)
        print(f"{name}: " + ", ".join(f"{key} {value:,.6g}" for key, value in figures.items()))
    return {"runs": found, "examples": len(examples), "rounds": chosen.rounds, "split": chosen.split}


if __name__ == "__main__":
    app.define(DecodeConfig)
    app.run(main, __doc__)

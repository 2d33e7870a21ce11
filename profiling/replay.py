"""Where a loss that is not finite begins: reruns the batch that a run kept, on its last checkpoint.

    python -m profiling.replay --workdir=W [--batch=W/nonfinite_step_120_part_0.npz]

Every module's outputs and the gradients that flow back into them are looked at, layer by layer. The first non-finite activation counts;
where all are finite, the first gradient in the order of backpropagation. The parameters are those of the last checkpoint, or those that the
run began with where it has none. They may be sounder than those of the step that failed: when all is finite here, the parameters had gone
astray since, not the batch.
"""

from __future__ import annotations

import math

from absl import flags

from launch import app

flags.DEFINE_string("workdir", "", "Folder of the run.")
flags.DEFINE_string("batch", "", "A kept batch; empty takes the last one, of all processes.")
flags.DEFINE_bool("all", False, "Show finite modules too.")


def looked_at(step, number: int, batch: dict, micro: int) -> dict:
    """One micro-batch's `loss`, its `probes` in order, and the paths of `parameters` and `gradients` that are not finite."""
    import jax
    import jax.numpy as jnp

    from profiling.probes import probing
    from rgjax import trees

    with probing() as probes:
        graded = jax.jit(jax.value_and_grad(step.loss, has_aux=True))
        (_, sums), grads = graded(step.state.params, step.fixed, batch, step.key(number, micro))
        jax.block_until_ready(grads)
        jax.effects_barrier()
    wrong = lambda tree: [path for path, leaf in trees.flat(tree) if not bool(jnp.isfinite(leaf).all())]
    parameters = wrong(trees.join(step.state.params, step.fixed["weights"]))
    loss = float(sums["loss"]) / max(float(sums["tokens"]), 1.0)
    return {"loss": loss, "probes": probes, "parameters": parameters, "gradients": wrong(grads)}


def verdict(found: dict) -> dict:
    """{"where": parameters, activations, loss, gradients or nowhere, "module": the first}.

    A gradient's `module` is the one that gave out what it is of, and `behind` the last module whose gradient was finite: it went wrong
    on the way between.
    """
    if found["parameters"]:
        return {"where": "parameters", "module": found["parameters"][0]}
    for probe in found["probes"]:
        if not math.isfinite(probe.value):
            return {"where": "activations", "module": probe.module}
    if not math.isfinite(found["loss"]):
        return {"where": "loss", "module": "loss"}
    behind = "loss"  # gradients come from there
    for probe in (p for p in reversed(found["probes"]) if p.reached):
        if not math.isfinite(probe.gradient):
            return {"where": "gradients", "module": probe.module, "behind": behind}
        behind = probe.module
    if found["gradients"]:
        return {"where": "gradients", "module": found["gradients"][0]}
    return {"where": "nowhere", "module": ""}


def table(probes: list, everything: bool) -> list[str]:
    """Lines: each module's largest output and gradient; only those that are not finite, unless `everything`."""
    lines = [f"{'module':<44} {'largest output':>15} {'largest gradient':>17}"]
    for p in probes:
        if everything or not math.isfinite(p.value) or (p.reached and not math.isfinite(p.gradient)):
            lines.append(f"{p.module:<44} {p.value:>15.4g} {format(p.gradient, '.4g') if p.reached else '-':>17}")
    return lines


def main() -> dict:
    """Reruns each micro-batch until one is not finite; prints its table and returns the summary that is printed last."""
    app.require(workdir=app.FLAGS.workdir)

    from rgjax.tasks.rerun import Step
    from rgjax.train import nonfinite, workdir

    workdir.read(app.FLAGS.workdir)  # for what it refuses
    number, rows = nonfinite.kept(app.FLAGS.workdir, app.FLAGS.batch)
    step = Step.open(app.FLAGS.workdir)
    for micro, batch in enumerate(step.micro_batches(rows)):
        found = looked_at(step, number, batch, micro)
        first = verdict(found)
        if first["where"] != "nowhere":
            break
    print("\n".join(table(found["probes"], app.FLAGS.all)))
    told = f"{first['where']} of {first['module']}" if first["module"] else "nowhere: this batch is sound on these parameters"
    told += f", coming from {first['behind']}" if "behind" in first else ""
    on = f"of step {step.number}" if step.number else "that the run began with"
    print(f"step {number}, on the parameters {on}: loss {found['loss']:.4g}; not finite first in {told}")
    names = {name: found[name] for name in ("parameters", "gradients")}
    loss = found["loss"] if math.isfinite(found["loss"]) else str(found["loss"])
    return {"step": number, "checkpoint": step.number, "micro_batch": micro, "loss": loss, "first": first, "not_finite": names}


if __name__ == "__main__":
    app.run(main, __doc__)

"""Which of several processes holds up the others: they all do the same steps, so the slowest decides."""

from __future__ import annotations

import json

import jax

from rgjax.parallel import cluster

NOTABLE = 0.1  # share of a step that a process must be behind
WHAT = ("waits {:.3f} s a step for its data", "takes {:.3f} s to start a step")
MEND = ("look at its disk, or raise --workers", "look at what else runs on its machine")


class Stragglers:
    """Compares the processes once per logged period; what is told is of the period before, so nobody waits."""

    def __init__(self):
        self.turn = 0

    def note(self, waited: float, dispatched: float, step_seconds: float) -> str:
        """A sentence, in the first process, where one process was much slower than all others; '' else. All are seconds per step."""
        if not cluster.several():
            return ""
        # A CPU runs the step where it is started, so starting it takes as long as the slowest process: there it tells nothing.
        mine = [waited, dispatched if jax.default_backend() != "cpu" else 0.0, step_seconds]
        told = cluster.tell("stragglers", self.turn, json.dumps(mine))
        self.turn += 1
        return named({process: json.loads(text) for process, text in told.items()})


def named(told: dict[int, list[float]]) -> str:
    """The sentence about {process: [waited, dispatched, step] seconds}; '' where none stands out."""
    if len(told) < 2:
        return ""
    for which in range(len(WHAT)):
        ordered = sorted(told, key=lambda process: told[process][which])
        last, others = ordered[-1], told[ordered[-2]][which]
        behind, step = told[last][which] - others, max(values[2] for values in told.values())
        if told[last][which] > 2 * others and behind > NOTABLE * step:
            return f"process {last} {WHAT[which].format(told[last][which])}, the others {others:.3f} s at most: {MEND[which]}"
    return ""

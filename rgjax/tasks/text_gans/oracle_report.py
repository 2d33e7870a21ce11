"""The oracle benchmark's table: rows by seed, kept as they are done, so that a run that was interrupted goes on."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable

from rgjax.config import AdversarialConfig, BenchConfig, DiscriminatorConfig, OracleConfig, to_json
from rgjax.errors import UserError
from rgjax.tasks.text_gans import results
from rgjax.tasks.text_gans.oracle import LENGTH, Bench, truth
from rgjax.tasks.text_gans.results import Kept

COLUMNS = ("nll_oracle", "nll_test", "nll_div", "j")


def evaluate(
    config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, oracle: OracleConfig, output: str, show: Callable[[int, int], None]
) -> tuple[dict, str]:
    """(row -> means over the seeds of nll_oracle, nll_test, nll_div and j with their `spread` and the `seeds` one by one, a table).

    With a folder `output`, oracle.json there has all of it, and what it has already is not computed again. Raises UserError for unknown rows,
    options that contradict each other, and a folder of another benchmark.
    """
    rows = results.checked(config, gan, judge, LENGTH)
    file = "" if oracle.oracle == "drawn" else hashlib.sha256(read_bytes(oracle.oracle)).hexdigest()
    given = {**to_json(config), **to_json(oracle), **to_json(gan), **to_json(judge), "oracle": file or oracle.oracle}
    kept = Kept.open(output, "oracle.json", given, {"entropy": 0.0})

    def make() -> Bench:
        bench = Bench(config, gan, judge, truth(oracle))
        kept.facts["entropy"] = bench.truth.entropy
        return bench

    results.measure(kept, rows, config.seeds, make, show)
    result, entropy = kept.rows(rows, config.seeds, COLUMNS), kept.facts["entropy"]
    head = f"nats per token, mean (standard deviation) over seeds; the oracle's entropy is {entropy:.3f}, and j of the oracle itself 0"
    return result | {"oracle": oracle.oracle, "entropy": entropy}, results.table(head, result, COLUMNS)


def read_bytes(path: str) -> bytes:
    """The file of --oracle; raises UserError where there is none."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"--oracle={path} is no file; give an .npz file of an oracle, or 'drawn'.")
    return pathlib.Path(path).read_bytes()

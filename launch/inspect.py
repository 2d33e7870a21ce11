"""Says what a folder holds: architecture, parameters, memory, tokenizer, and training samples token by token with their loss mask.

    python -m launch.inspect PATH                       (a Hugging Face folder, a workdir, a dataset or an adapter)
    python -m launch.inspect W --samples=5 --split=val
    python -m launch.inspect DATASET --code_words=OUT.json   (by which words its references tell control codes apart)
    python -m launch.inspect FOLDER --dataset=DATASET   (samples as launch.train --init_from=FOLDER would read them)

Weights are not loaded: configuration and tensor headers tell. A folder that can't be used is refused in one sentence.
"""

from __future__ import annotations

from launch import app
from rgjax.config import InputConfig, InspectConfig


def main() -> dict:
    """Reads the flags, prints what was found, and returns the same numbers, printed last."""
    config, inputs = app.read(InspectConfig), app.read(InputConfig)
    app.require(path=config.path)

    from rgjax.report import inspection
    from rgjax.tasks import inspect

    facts, samples = inspect.inspect(config, inputs, app.given(InputConfig))
    inspection.show(facts, samples)
    return facts


if __name__ == "__main__":
    app.define(InspectConfig, InputConfig)
    app.run(main, __doc__, positional="path")

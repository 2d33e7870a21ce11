"""Prints written reasons beside their inputs, and what to open next.

    python -m launch.show --workdir=W --count=10

Reads what launch.evaluate left in the workdir.
"""

from __future__ import annotations

from launch import app
from rgjax.config import ShowConfig


def main() -> dict:
    """Reads the flags, prints the reasons, and returns the summary that is printed last."""
    config = app.read(ShowConfig)
    app.require(workdir=config.workdir)

    from rgjax.report import terminal

    return terminal.show(config.workdir, config.count)


if __name__ == "__main__":
    app.define(ShowConfig)
    app.run(main, __doc__)

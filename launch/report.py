"""One self-contained HTML page of a run: curves, scores beside floors, reasons beside their inputs, configuration.

    python -m launch.report --workdir=W

Reads what launch.train and launch.evaluate left in the workdir; a page can be made while the run goes on.
"""

from launch import app
from rgjax.config import ReportConfig


def main() -> dict:
    """Reads the flags, writes the page, and returns the summary that is printed last."""
    config = app.read(ReportConfig)
    app.require(workdir=config.workdir)
    from rgjax.report import write

    return write(config.workdir, config.output)


if __name__ == "__main__":
    app.define(ReportConfig)
    app.run(main, __doc__)

"""A run as one self-contained HTML page."""

from rgjax.report.page import write

__all__ = ["write"]

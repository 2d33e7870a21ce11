"""The one exception that means "you can mend this" (launchers print it as one sentence and exit with code 2), and what others say in a line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a file, a flag or the environment.

    The message is one sentence that names the file, line or flag and says how to mend it.
    """


def first_line(error: Exception) -> str:
    """What an error of another library says first, cut to one line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]

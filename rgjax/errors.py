"""The one exception that means "you can mend this": launchers print it as one sentence and exit with code 2."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a file, a flag or the environment.

    The message is one sentence that names the file, line or flag and says how to mend it.
    """

"""Errors that a user can cause or mend, and the exit codes of the command line.

An error's text is one clear line: what went wrong, where (file, row, field or flag), the value, the mend.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_NEGATIVE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 3
EXIT_NO_EVIDENCE = 4


class SafeprefError(Exception):
    """A failure with one clear line for the user; `exit_code` is what the command returns."""

    exit_code = EXIT_USAGE


class InputError(SafeprefError):
    """Bad input: a recipe key, a data row, a file, a flag."""


class Diverged(InputError):
    """A loss that is not finite: the settings are unusable, and a search counts them so."""


class Interrupted(SafeprefError):
    """The work was stopped from outside; the same command continues."""

    exit_code = EXIT_INTERRUPTED


class NegativeResult(SafeprefError):
    """The work's own negative answer: a gate failed, rows are bad."""

    exit_code = EXIT_NEGATIVE

"""Errors that a user can solve. Their text says what came, what was expected and what to do.

The command line shows the text without a traceback and exits with ``exit_code``.
"""

from collections.abc import Sequence


class SchnRayError(Exception):
    """An error in the user's input or environment; the message says what to do about it."""

    exit_code = 2


class UnknownId(SchnRayError):
    """An id that is not in the index."""


class SourceHasChanged(SchnRayError):
    """A finished directory was made when its source held other files."""


class TooManyBadRows(SchnRayError):
    """More rows were quarantined than the job allows."""

    exit_code = 3


def few(names: Sequence[str], most: int) -> str:
    """Return the first names for a message, and how many more there are.

    Args:
        names: any number.
        most: so many are shown.

    Example:
        >>> few(["a", "b", "c"], most=2), few(["a"], most=2)
        ('a, b and 1 more', 'a')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'X'?"`` with the most similar name, or ``""`` if none is similar.

    Args:
        name: what the user typed.
        known: the names that exist, possibly dotted; their last parts are compared too.

    Example:
        >>> nearest("bist", ["bits", "seed"])
        "; did you mean 'bits'?"
    """
    import difflib

    by_leaf = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(name, known, 1, 0.5)
    leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(by_leaf), 1, 0.6)
    match = by_leaf[leaf[0]] if leaf else (close[0] if close else "")
    return f"; did you mean '{match}'?" if match else ""

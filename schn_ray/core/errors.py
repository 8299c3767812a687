"""Errors that a user can act on: what came, what was wanted, what to do. No traceback is shown."""


class SchnRayError(Exception):
    """The user's input or environment is at fault; the message says what to do about it."""

    exit_code = 2


class UnknownId(SchnRayError):
    """An id that is not in the index."""


class TooManyBadRows(SchnRayError):
    """More rows were quarantined than the job allows."""

    exit_code = 3


def nearest(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'X'?"`` for the known name that is closest, or ``""``.

    >>> nearest("bist", ["bits", "seed"])
    "; did you mean 'bits'?"
    """
    import difflib

    by_leaf = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(name, known, 1, 0.5)
    leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], list(by_leaf), 1, 0.6)
    found = by_leaf[leaf[0]] if leaf else (close[0] if close else "")
    return f"; did you mean '{found}'?" if found else ""

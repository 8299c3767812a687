"""Several texts of a row, such as its labels, as one text: each between two separators.

So they lie in an index as any text does, and what a condition asks of them is a search within it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schn_ray.core.errors import SchnRayError

_SEPARATOR = "\x1f"  # ASCII's own "unit separator"
_ANY, _ONE = f"[^{_SEPARATOR}]*", f"[^{_SEPARATOR}]"


def joined_texts(texts: pa.Array[Any]) -> pa.Array[Any]:
    """Join the texts of each row.

    Args:
        texts: [n] lists of texts, or texts, of which each becomes a list. In a list, texts that are
            missing are left out.

    Returns:
        [n] texts; missing where the list is missing or empty.

    Raises:
        SchnRayError: a text has the separator in it.

    Example:
        >>> joined_texts(pa.array([["cat", "dog"], []])).to_pylist()
        ['\\x1fcat\\x1fdog\\x1f', None]
    """
    of_lists = pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)
    if of_lists:
        texts = texts.cast(pa.large_list(pa.large_string()))
        if texts.flatten().null_count:
            texts = pa.array([_without_missing(row) for row in texts.to_pylist()], texts.type)
    values = texts.flatten() if of_lists else texts.cast(pa.large_string())
    if pc.any(pc.match_substring(values, _SEPARATOR)).as_py():
        raise SchnRayError("a text of a list has the control character U+001F; remove it")
    edge, nothing, missing = (pa.scalar(text, pa.large_string()) for text in (_SEPARATOR, "", None))
    if of_lists:
        filled = pc.not_equal(pc.list_value_length(texts), 0)
        values = pc.if_else(filled, pc.binary_join(texts, edge), missing)
    joined: pa.Array[Any] = pc.binary_join_element_wise(edge, values, edge, nothing)
    return joined


def _without_missing(texts: list[str | None] | None) -> list[str] | None:
    return None if texts is None else [text for text in texts if text is not None]


def split_texts(text: str | None) -> list[str]:
    """Return the texts that ``joined_texts`` joined.

    Args:
        text: of a row.

    Example:
        >>> split_texts("\\x1fcat\\x1fdog\\x1f"), split_texts(None)
        (['cat', 'dog'], [])
    """
    return [] if text is None else text[1:-1].split(_SEPARATOR)


def flattened_texts(joined: pa.Array[Any]) -> pa.Array[Any]:
    """Return the texts of all rows, one after the other.

    Args:
        joined: of ``joined_texts``.

    Example:
        >>> flattened_texts(joined_texts(pa.array([["cat", "dog"], [], ["cat"]]))).to_pylist()
        ['cat', 'dog', 'cat']
    """
    inside = pc.utf8_slice_codeunits(joined.drop_null(), 1, -1)
    texts: pa.Array[Any] = pc.list_flatten(pc.split_pattern(inside, _SEPARATOR))
    return texts


def has_text(column: pc.Expression, text: str) -> pc.Expression:
    """Return whether one of the texts equals another.

    Args:
        column: of ``joined_texts``.
        text: the other.
    """
    return pc.match_substring(column, f"{_SEPARATOR}{text}{_SEPARATOR}")


def has_like(column: pc.Expression, pattern: str) -> pc.Expression:
    """Return whether one of the texts is like a pattern of SQL's.

    Args:
        column: of ``joined_texts``.
        pattern: ``%`` is any characters, ``_`` is one, a backslash makes the next one plain.
    """
    parts, characters = list[str](), iter(pattern)
    for character in characters:
        if character in "%_":
            parts.append(_ANY if character == "%" else _ONE)
        else:
            plain = next(characters, character) if character == "\\" else character
            parts.append(f"\\x{{{ord(plain):x}}}")
    return pc.match_substring_regex(column, f"{_SEPARATOR}{''.join(parts)}{_SEPARATOR}")

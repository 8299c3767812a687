"""Conditions on the columns of rows, such as ``label = 'cat' and year >= 2020``.

``parse_condition`` reads the text by recursive descent and makes an Arrow expression of it; nothing
is ever evaluated as code. The grammar, a part of SQL's::

    any        = all {"or" all}
    all        = not {"and" not}
    not        = "not" not | "(" any ")" | comparison
    comparison = operand ("=" | "!=" | "<" | "<=" | ">" | ">=") operand
               | column ["not"] "in" "(" value {"," value} ")"
               | column ["not"] "like" text
               | column "is" ["not"] "null"
               | column                                (of booleans)
    operand    = column | value
    value      = 'text' | number | "true" | "false"

A column is a word, or any name in double quotes. Dates and times are texts: '2020-01-31'. A column
of several texts a row, such as labels, is equal to, in or like what one of its texts is. As in SQL,
a comparison with a missing value is neither true nor false, and only rows for which the condition
is true pass.
"""

from __future__ import annotations

import datetime
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.retrieval.text_lists import has_like, has_text

# what a column can be -> how it lies in memory
KINDS: dict[str, pa.DataType] = {
    "text": pa.large_string(),
    "texts": pa.large_string(),  # see text_lists
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "time": pa.timestamp("us"),
}
_NUMBERS, _TIMES = ("integer", "number"), ("date", "time")
_COMPARISONS: dict[str, Callable[[Any, Any], pc.Expression]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "like", "true", "false")
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")+")
    |(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|<>|!=|==|[=<>(),])""",
    re.VERBOSE,
)
_LONGEST = 1 << 16  # characters
_DEEPEST = 50  # parentheses and nots
_SHOWN = 50  # characters at each side of an error


class BadCondition(SchnRayError):
    """A condition that does not parse, names no column, or compares what cannot be compared."""


@dataclass(frozen=True)
class Condition:
    """A condition that was read.

    Attributes:
        expression: true for the rows that pass.
        columns: that it reads.
    """

    expression: pc.Expression
    columns: tuple[str, ...]

    def passing(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows pass: bool [n].

        Args:
            table: n rows, with ``columns``, of the types in ``KINDS``.
        """
        import pyarrow.acero as acero  # imports pandas where it is installed: a second

        source = acero.Declaration("table_source", acero.TableSourceNodeOptions(table))
        project = acero.Declaration(
            "project", acero.ProjectNodeOptions([self.expression], ["passing"]), [source]
        )
        passing = project.to_table(use_threads=False)["passing"].combine_chunks()
        return np.asarray(passing.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def parse_condition(text: str, columns: Mapping[str, str], advice: str = "") -> Condition:
    """Read a condition.

    Args:
        text: see the module's docstring.
        columns: name -> kind, see ``KINDS``.
        advice: what an error about a name that is no column ends with.

    Raises:
        BadCondition: it does not parse, names no column, or compares what cannot be compared.

    Example:
        >>> parse_condition("year >= 2020 or not label = 'cat'", {"year": "integer",
        ...     "label": "text"}).columns
        ('label', 'year')
    """
    if len(text) > _LONGEST:
        raise BadCondition(
            f"the filter has {len(text):,} characters; {_LONGEST:,} are the most. For many values, "
            "make a column of them"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadCondition(f"the filter is not Unicode text: {error}") from error
    return _Parser(text, columns, advice).condition()


@dataclass(frozen=True)
class _Token:
    """A word, name, text, number or sign; ``kind`` is "end" behind the last."""

    kind: str
    value: str
    at: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


@dataclass(frozen=True)
class _Operand:
    """A column, or a value: a text, a number or a boolean; ``at``: where it stands."""

    kind: str
    value: str | int | float | bool
    is_column: bool
    at: int

    def __str__(self) -> str:
        if self.is_column:
            return f"{self.value} ({self.kind})"
        return f"the {self.kind} {self.value!r}"


class _Parser:
    def __init__(self, text: str, columns: Mapping[str, str], advice: str) -> None:
        self._text, self._columns, self._advice = text, columns, advice
        self._tokens, self._next = self._split(), 0
        self._used, self._depth = set[str](), 0

    def condition(self) -> Condition:
        expression = self._any()
        if self._token.kind != "end":
            self._expected("and, or, or the end")
        return Condition(expression, tuple(sorted(self._used)))

    def _split(self) -> list[_Token]:
        tokens, at = list[_Token](), 0
        while True:
            at += len(self._text[at:]) - len(self._text[at:].lstrip())
            if at == len(self._text):
                return [*tokens, _Token("end", "", at)]
            match = _TOKEN.match(self._text, at)
            if match is None:
                quote = self._text[at] in "'\""
                why = "this quote is not closed" if quote else f"{self._text[at]!r} has no meaning"
                self._fail(f"the filter does not parse: {why}", at)
            tokens.append(_token(match))
            at = match.end()

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *values: str) -> bool:
        """Go past the next token if it is one of these keywords or signs."""
        token = self._token
        if token.kind in ("keyword", "sign") and token.value in values:
            self._next += 1
            return True
        return False

    def _any(self) -> pc.Expression:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return _joined(parts, operator.or_)

    def _all(self) -> pc.Expression:
        parts = [self._not()]
        while self._take("and"):
            parts.append(self._not())
        return _joined(parts, operator.and_)

    def _not(self) -> pc.Expression:
        opening = self._token
        nested = self._take("not", "(")
        if not nested:
            return self._comparison()
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"the filter is nested more than {_DEEPEST} deep", opening.at)
        if opening.value == "not":
            expression = ~self._not()
        else:
            expression = self._any()
            if not self._take(")"):
                self._expected("and, or, or )")
        self._depth -= 1
        return expression

    def _comparison(self) -> pc.Expression:
        left, sign = self._operand(), self._token
        if self._take(*_COMPARISONS):
            return self._compared(left, sign, self._operand())
        if not left.is_column:
            self._expected("a comparison, such as = or >=")
        column = pc.field(str(left.value))
        if self._take("is"):
            missing = not self._take("not")
            if not self._take("null"):
                self._expected("null" if not missing else "null, or not null")
            return column.is_null() if missing else column.is_valid()
        negated = self._take("not")
        if self._take("in"):
            expression = self._one_of(left)
        elif self._take("like"):
            expression = self._like(left, column)
        elif negated:
            self._expected("in or like")
        elif left.kind == "boolean":
            return column
        else:
            self._expected(f"a comparison of {left.value}, such as =, >=, in, like or is null")
        return ~expression if negated else expression

    def _operand(self) -> _Operand:
        token = self._token
        if token.kind in ("name", "word"):
            operand = self._column(token)
        elif token.kind == "text":
            operand = _Operand("text", token.value, False, token.at)
        elif token.kind == "number":
            operand = self._number(token)
        elif token.kind == "keyword" and token.value in ("true", "false"):
            operand = _Operand("boolean", token.value == "true", False, token.at)
        elif token.kind == "keyword" and token.value == "null":
            self._fail("nothing equals null: write is null, or is not null", token.at)
        else:
            self._expected("a column or a value")
        self._next += 1
        return operand

    def _column(self, token: _Token) -> _Operand:
        if token.value not in self._columns:
            name = token.value[:_SHOWN]
            hint = nearest(name, list(self._columns)) or "."
            if token.kind == "name":
                hint += f" A text stands in single quotes: '{name}'."
            known = f"Columns: {', '.join(self._columns)}"
            self._fail(f"no column {name!r}{hint} {known}{self._advice}", token.at)
        self._used.add(token.value)
        return _Operand(self._columns[token.value], token.value, True, token.at)

    def _number(self, token: _Token) -> _Operand:
        if re.fullmatch(r"[+-]?[0-9]+", token.value):
            # a longer text would take int() long
            whole = int(token.value) if len(token.value) < 30 else 1 << 63
            if -(1 << 63) <= whole < 1 << 63:
                return _Operand("integer", whole, False, token.at)
        elif math.isfinite(number := float(token.value)):
            return _Operand("number", number, False, token.at)
        self._fail("this number is too large", token.at)

    def _compared(self, left: _Operand, sign: _Token, right: _Operand) -> pc.Expression:
        if not (left.is_column or right.is_column):
            self._fail("two values are compared; name a column", sign.at)
        kind = self._common_kind(left, right)
        if kind == "texts":
            return self._one_is(left, sign, right)
        if kind == "boolean" and sign.value in ("<", "<=", ">", ">="):
            self._fail("booleans have no order: write = or !=", sign.at)
        return _COMPARISONS[sign.value](self._as_kind(left, kind), self._as_kind(right, kind))

    def _one_is(self, left: _Operand, sign: _Token, right: _Operand) -> pc.Expression:
        """Compare a column of several texts a row with a text."""
        column, text = (left, right) if left.is_column else (right, left)
        if text.is_column or sign.value not in ("=", "==", "!=", "<>"):
            why = "has several texts a row: compare it with one text by = or !=, or by in or like"
            self._fail(f"{column.value} {why}", sign.at)
        equal = has_text(pc.field(str(column.value)), str(text.value))
        return equal if sign.value in ("=", "==") else ~equal

    def _common_kind(self, left: _Operand, right: _Operand) -> str:
        """Return the kind as which two operands are compared."""
        for one, other in ((left, right), (right, left)):
            is_moment = one.is_column and one.kind in _TIMES
            if is_moment and other.kind == "text" and not other.is_column:
                return one.kind
            if one.kind == "texts" and other.kind in ("text", "texts"):
                return "texts"
        if left.kind == right.kind:
            return left.kind
        for group in (_NUMBERS, _TIMES):
            if left.kind in group and right.kind in group:
                return group[-1]
        self._fail(f"{left} cannot be compared with {right}", right.at)

    def _as_kind(self, operand: _Operand, kind: str) -> pc.Expression:
        if not operand.is_column:
            return pc.scalar(self._scalar(operand, kind))
        column = pc.field(str(operand.value))
        # not safe: Arrow would refuse integers beyond 2^53, which are rounded
        return column if operand.kind == kind else column.cast(KINDS[kind], safe=False)

    def _scalar(self, value: _Operand, kind: str) -> pa.Scalar[Any]:
        content: Any = value.value
        if kind in _TIMES:
            content = self._moment(str(content), kind, value.at)
        return pa.scalar(float(content) if kind == "number" else content, KINDS[kind])

    def _moment(self, text: str, kind: str, at: int) -> datetime.date:
        try:
            if kind == "date":
                return datetime.date.fromisoformat(text)
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                return moment
            return moment.astimezone(datetime.UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            example = "2020-01-31" if kind == "date" else "2020-01-31 18:00"
            self._fail(f"{text!r} is no {kind}; write it as '{example}'", at)

    def _one_of(self, left: _Operand) -> pc.Expression:
        if not self._take("("):
            self._expected("(")
        values = list[_Operand]()
        while not values or self._take(","):
            values.append(self._operand())
            if values[-1].is_column:
                self._fail("in takes values, no columns", values[-1].at)
        if not self._take(")"):
            self._expected(", or )")
        kinds = {self._common_kind(left, value) for value in values}
        kind = "number" if "number" in kinds else kinds.pop()
        if kind == "texts":
            field = pc.field(str(left.value))
            return _joined([has_text(field, str(value.value)) for value in values], operator.or_)
        column = self._as_kind(left, kind)
        scalars = [self._scalar(value, kind).as_py() for value in values]
        # Arrow's own is_in says false of a missing value, whose negation would be true
        unknown = pc.scalar(pa.scalar(None, pa.bool_()))
        return pc.if_else(column.is_valid(), column.isin(pa.array(scalars, KINDS[kind])), unknown)

    def _like(self, left: _Operand, column: pc.Expression) -> pc.Expression:
        if left.kind not in ("text", "texts"):
            self._fail(f"{left} is no text; like compares texts", left.at)
        pattern = self._token
        if pattern.kind != "text":
            self._expected("a text in single quotes, such as 'cat/%'")
        self._next += 1
        like = has_like if left.kind == "texts" else pc.match_like
        expression: pc.Expression = like(column, pattern.value)
        return expression

    def _expected(self, what: str) -> NoReturn:
        token = self._token
        self._fail(f"the filter does not parse: expected {what}, not {token}", token.at)

    def _fail(self, why: str, at: int) -> NoReturn:
        first, last = max(0, at - _SHOWN), at + _SHOWN
        shown = "".join(c if c.isprintable() else " " for c in self._text[first:last])
        before, after = "..." * (first > 0), "..." * (last < len(self._text))
        caret = " " * (at - first + len(before)) + "^"
        raise BadCondition(f"{why}\n  {before}{shown}{after}\n  {caret}")


def _token(match: re.Match[str]) -> _Token:
    kind, text = str(match.lastgroup), match.group()
    if kind in ("text", "name"):
        quote = text[0]
        return _Token(kind, text[1:-1].replace(2 * quote, quote), match.start())
    if kind == "word" and text.lower() in _KEYWORDS:
        return _Token("keyword", text.lower(), match.start())
    return _Token(kind, text, match.start())


def _joined(
    parts: Sequence[pc.Expression], join: Callable[[Any, Any], pc.Expression]
) -> pc.Expression:
    """Join by halves, so that many parts do not nest deep: Arrow descends by recursion."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return join(_joined(parts[:middle], join), _joined(parts[middle:], join))

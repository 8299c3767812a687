"""Conditions: each against an evaluation in plain Python, and every mistake with its place."""

import datetime
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schn_ray.retrieval.text_lists import joined_texts
from schn_ray.retrieval.where import KINDS, BadCondition, parse_condition

COLUMNS = {
    "label": "text",
    "year": "integer",
    "score": "number",
    "indoor": "boolean",
    "taken": "date",
    "at": "time",
    'a "b"': "text",
    "tags": "texts",
}
DAY = datetime.date(2020, 1, 31)
NOON = datetime.datetime(2020, 1, 31, 12)
ROWS: list[dict[str, Any]] = [
    dict(zip(COLUMNS, values, strict=True))
    for values in [
        ("cat", 2020, 0.5, True, DAY, NOON, "x", ["cat"]),
        ("it's", 2021, -1.0, False, DAY + datetime.timedelta(1), NOON, None, ["it's", "dog"]),
        (None, None, None, None, None, None, None, None),
        ("", 1 << 60, 2020.0, None, None, NOON + datetime.timedelta(1), "y", ["", "wildcat"]),
        ("dog", -3, float("nan"), False, datetime.date(1, 1, 1), None, "cat", ["dog", "cat", "ü"]),
    ]
]
TABLE = pa.table(
    {
        name: joined_texts(pa.array(values)) if kind == "texts" else pa.array(values, KINDS[kind])
        for name, kind in COLUMNS.items()
        for values in ([row[name] for row in ROWS],)
    }
)
Truth = bool | None
Rule = Callable[[dict[str, Any]], Truth]
Written = tuple[str, Rule]
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def passing(text: str) -> list[int]:
    return np.flatnonzero(parse_condition(text, COLUMNS).passing(TABLE)).tolist()


def known(rule: Callable[..., bool], *values: Any) -> Truth:
    return None if None in values else rule(*values)


def written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


VALUES = {
    "label": st.sampled_from(["cat", "it's", "", "dog", "c"]),
    "year": st.sampled_from([2020, 2021, -3, 1 << 60, 2020.5, 0]),
    "score": st.sampled_from([0.5, -1.0, 2020, 1e-3]),
    "taken": st.sampled_from([DAY, DAY - datetime.timedelta(400)]),
    "at": st.sampled_from([NOON, NOON + datetime.timedelta(hours=3)]),
}


@st.composite
def comparisons(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(sorted(VALUES)))
    value, sign = draw(VALUES[name]), draw(st.sampled_from(sorted(SIGNS)))
    rule = SIGNS[sign]
    if draw(st.booleans()):
        return f"{name}{sign} {written(value)}", lambda row: known(rule, row[name], value)
    return f"{written(value)} {sign}{name}", lambda row: known(rule, value, row[name])


@st.composite
def memberships(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(sorted(VALUES)))
    values = draw(st.lists(VALUES[name], min_size=1, max_size=3))
    listed = ", ".join(map(written, values))
    if draw(st.booleans()):
        return f"{name} NOT in ({listed})", lambda row: known(lambda v: v not in values, row[name])
    return f"{name} in ({listed})", lambda row: known(lambda v: v in values, row[name])


@st.composite
def others(draw: st.DrawFn) -> Written:
    name = draw(st.sampled_from(sorted(COLUMNS)))
    quoted = '"' + name.replace('"', '""') + '"'
    choices: list[Written] = [
        (f"{quoted} is null", lambda row: row[name] is None),
        (f"{quoted} Is Not Null", lambda row: row[name] is not None),
        ("indoor", lambda row: row["indoor"]),
        ("indoor = false", lambda row: known(operator.not_, row["indoor"])),
        ("year < score", lambda row: known(operator.lt, row["year"], row["score"])),
        ("at > taken", lambda row: known(lambda a, d: a.date() >= d, row["at"], row["taken"])),
        ("label like '%t%'", lambda row: known(lambda v: "t" in v, row["label"])),
        ("label not like 'c_t'", lambda row: known(lambda v: v != "cat", row["label"])),
        ("tags = 'cat'", lambda row: known(lambda v: "cat" in v, row["tags"])),
        ("'cat' != tags", lambda row: known(lambda v: "cat" not in v, row["tags"])),
        ("tags = ''", lambda row: known(lambda v: "" in v, row["tags"])),
        (
            "tags in ('it''s', 'wildcat')",
            lambda row: known(lambda v: v[-1] in ("dog", "wildcat"), row["tags"]),
        ),
        ("tags not in ('dog')", lambda row: known(lambda v: "dog" not in v, row["tags"])),
        ("tags like '%cat'", lambda row: known(lambda v: v[0] != "it's", row["tags"])),
        ("tags like '_'", lambda row: known(lambda v: "ü" in v, row["tags"])),
        ("tags like '\\_'", lambda row: known(lambda v: False, row["tags"])),
    ]
    return draw(st.sampled_from(choices))


def both(one: Written, other: Written) -> Written:
    def rule(row: dict[str, Any]) -> Truth:
        values = one[1](row), other[1](row)
        return False if False in values else None if None in values else True

    return f"({one[0]}) and {other[0]}", rule


def either(one: Written, other: Written) -> Written:
    def rule(row: dict[str, Any]) -> Truth:
        values = one[1](row), other[1](row)
        return True if True in values else None if None in values else False

    return f"({one[0]} or {other[0]})", rule


def opposite(one: Written) -> Written:
    return f"not({one[0]})", lambda row: known(operator.not_, one[1](row))


CONDITIONS = st.recursive(
    comparisons() | memberships() | others(),
    lambda inner: (
        st.builds(both, inner, inner) | st.builds(either, inner, inner) | st.builds(opposite, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(CONDITIONS)
def test_conditions_mean_what_they_mean_in_sql(condition: Written) -> None:
    text, rule = condition
    assert passing(text) == [i for i, row in enumerate(ROWS) if rule(row) is True]


def test_and_binds_closer_than_or_and_not_closer_than_and() -> None:
    assert passing("year = 2020 or year = 2021 and label = 'no'") == [0]
    assert passing("not year = 2021 and label != 'dog'") == [0, 3]


def test_times_with_an_offset_are_utc() -> None:
    assert passing("at = '2020-01-31T13:00+01:00'") == passing("at = '2020-01-31 12:00'") == [0, 1]


def test_many_terms_do_not_nest() -> None:
    many = " or ".join(f"year = {n}" for n in range(4000))
    assert passing(f"{many} or label like 'it%'") == [0, 1]


@pytest.mark.parametrize(
    ("text", "why", "at"),
    [
        ("", "expected a column or a value, not the end", 0),
        ("label =", "expected a column or a value, not the end", 7),
        ("label = and", "expected a column or a value, not 'and'", 8),
        ("label = 'cat", "this quote is not closed", 8),
        ("year = 1; drop", "';' has no meaning", 8),
        ("year = 1 year", "expected and, or, or the end, not 'year'", 9),
        ("(year = 1", "expected and, or, or ), not the end", 9),
        ("year = 1)", "expected and, or, or the end, not ')'", 8),
        ("year", "expected a comparison of year, such as", 4),
        ("1", "expected a comparison, such as = or >=", 1),
        ("1 = 1", "two values are compared; name a column", 2),
        ("year is 3", "expected null, or not null, not '3'", 8),
        ("year is not 3", "expected null, not '3'", 12),
        ("year not 3", "expected in or like, not '3'", 9),
        ("year in 3", "expected (, not '3'", 8),
        ("year in ()", "expected a column or a value, not ')'", 9),
        ("year in (1 2)", "expected , or ), not '2'", 11),
        ("year in (score)", "in takes values, no columns", 9),
        ("year in (1, 'a')", "year (integer) cannot be compared with the text 'a'", 12),
        ("label like 3", "expected a text in single quotes", 11),
        ("year like 'a'", "year (integer) is no text", 0),
        ("label = null", "nothing equals null: write is null", 8),
        (
            "lable = 'cat'",
            "no column 'lable'; did you mean 'label'? Columns: label, year, score",
            0,
        ),
        ('label = "cat"', "A text stands in single quotes: 'cat'", 8),
        ("label = 3", "label (text) cannot be compared with the integer 3", 8),
        ("3 = label", "the integer 3 cannot be compared with label (text)", 4),
        ("label = year", "label (text) cannot be compared with year (integer)", 8),
        ("taken = label", "taken (date) cannot be compared with label (text)", 8),
        ("taken = 2020", "taken (date) cannot be compared with the integer 2020", 8),
        ("taken = '2020-02-30'", "'2020-02-30' is no date; write it as '2020-01-31'", 8),
        ("at > 'noon'", "'noon' is no time; write it as '2020-01-31 18:00'", 5),
        ("at > '0001-01-01T00:00+10:00'", "is no time", 5),
        ("tags < 'cat'", "tags has several texts a row: compare it with one text", 5),
        ("tags = label", "tags has several texts a row", 5),
        ("tags = 3", "tags (texts) cannot be compared with the integer 3", 7),
        ("tags in (3)", "tags (texts) cannot be compared with the integer 3", 9),
        ("tags", "expected a comparison of tags", 4),
        ("indoor < true", "booleans have no order", 7),
        ("year > 99999999999999999999", "this number is too large", 7),
        ("score > 1e999", "this number is too large", 8),
        ("not " * 51 + "indoor", "nested more than 50 deep", 200),
        ("(" * 51, "nested more than 50 deep", 50),
        ("\n\tyear =\n'x'", "year (integer) cannot be compared with the text 'x'", 9),
    ],
)
def test_mistakes_are_named_and_shown(text: str, why: str, at: int) -> None:
    with pytest.raises(BadCondition) as caught:
        parse_condition(text, COLUMNS)
    message, shown, caret = str(caught.value).split("\n")
    assert why in message
    before = "..." if at > 50 else ""
    first = max(0, at - 50)
    assert shown.startswith(f"  {before}{text[first:at]}".replace("\n", " ").replace("\t", " "))
    assert caret == " " * (2 + len(before) + at - first) + "^"


@pytest.mark.parametrize(
    ("text", "why"),
    [("year = 1 or " * 6000, "72,000 characters; 65,536 are"), ("label = '\ud800'", "not Unicode")],
)
def test_texts_that_are_not_read_at_all(text: str, why: str) -> None:
    with pytest.raises(BadCondition, match=why):
        parse_condition(text, COLUMNS)

"""Numbers, tables and colours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotunectl.output import (
    Column,
    Style,
    command_text,
    format_bytes,
    format_count,
    format_fields,
    format_number,
    format_parameters,
    format_seconds,
    format_speed,
    format_table,
    format_wrapped,
    printable,
    shortened,
)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "-"),
        (-1, "-"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2_300_000, "2.2 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_bytes_have_a_binary_unit(size_bytes, text):
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(("count", "text"), [(0, "-"), (7, "7"), (131072, "131,072")])
def test_counts_have_thousands(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 ms"),
        (0.00419, "4.2 ms"),
        (0.0994, "99.4 ms"),
        (0.0996, "100 ms"),
        (0.83, "830 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (2.44, "2.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200.0, "3 min 20 s"),
        (3600.0, "1 h"),
        (7500.0, "2 h 5 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_spans_have_the_unit_that_reads_best(seconds, text):
    assert format_seconds(seconds) == text


def test_a_table_is_aligned_and_has_no_trailing_spaces():
    columns = (Column("NAME"), Column("SIZE", right=True), Column("NOTE"))
    rows = [("pocket", "2.2 MiB", ""), ("a-longer-name", "900.0 MiB", "fine")]
    assert format_table(columns, rows) == (
        "NAME                SIZE  NOTE\n"
        "pocket           2.2 MiB\n"
        "a-longer-name  900.0 MiB  fine\n"
    )  # fmt: skip


def test_a_table_counts_terminal_columns():
    text = format_table(
        (Column("NAME"), Column("N", right=True)), [("模型", "1"), ("e\u0301te", "2"), ("plain", "3")]
    )
    assert text == "NAME   N\n模型   1\ne\u0301te    2\nplain  3\n"


def test_a_table_without_rows_has_its_titles():
    assert format_table((Column("NAME"), Column("SIZE")), []) == "NAME  SIZE\n"


def test_fields_are_aligned():
    assert format_fields((("Up for", "3 s"), ("Log", ""))) == "Up for  3 s\nLog\n"


def test_colours_only_where_wanted():
    assert Style(colours=True).red("no") == "\x1b[31mno\x1b[0m"
    assert Style(colours=True).dim("") == ""
    assert Style(colours=False).bold("yes") == "yes"


@given(st.text())
def test_no_text_can_steer_the_terminal(text):
    shown = printable(text)
    assert not any(ord(char) < 0x20 and char not in "\n\t" for char in shown)
    assert not any(0x7F <= ord(char) < 0xA0 for char in shown)
    assert printable(shown) == shown


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_every_row_of_a_table_is_one_line(rows):
    assert format_table((Column("A"), Column("B", right=True)), rows).count("\n") == len(rows) + 1


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "-"),
        (-1, "-"),
        (1, "1M"),
        (494_000_000, "494M"),
        (999_499_999, "999M"),
        (999_500_000, "1.0B"),
        (8_190_000_000, "8.2B"),
        (99_949_999_999, "99.9B"),
        (99_950_000_000, "100B"),
        (235_000_000_000, "235B"),
    ],
)
def test_parameters_are_counted_in_millions_or_billions(count, text):
    assert format_parameters(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0"), (6.42, "6.4"), (9.94, "9.9"), (9.95, "10"), (2765.4, "2,765")]
)
def test_a_number_has_two_figures_or_more(value, text):
    assert format_number(value) == text


def test_a_speed_is_called_an_estimate():
    assert format_speed(23.4) == "about 23 tokens/s, estimated"
    assert format_speed(0) == "not estimated"


def test_a_command_is_what_a_shell_takes_as_it_is():
    assert command_text("autotunectl", "pull", "qwen3:8b") == "autotunectl pull qwen3:8b"
    assert command_text("autotunectl", "pull", "a b'c\x1b\n") == "autotunectl pull 'a b'\"'\"'c '"


def test_a_long_value_goes_on_under_its_beginning():
    text = format_wrapped(
        [("Name", "word " * 20), ("", "short"), ("Longer", "x" * 90), ("None", "")], indent=2
    )
    assert text == (
        f"  Name    {'word ' * 13}word\n          {'word ' * 5}word\n"
        f"          short\n  Longer  {'x' * 90}\n  None\n"
    )
    assert format_wrapped([("a", "b")], indent=2, value_column=11) == "  a        b\n"
    assert format_wrapped([("too long a name", "b")], value_column=4) == "too long a name b\n"
    assert format_wrapped([]) == ""


@given(st.lists(st.tuples(st.text("abc", max_size=8), st.text())))
def test_nothing_is_lost_where_a_value_is_broken(fields):
    fields = [(name, printable(value)) for name, value in fields]
    text = format_wrapped(fields)
    assert text.split() == [word for name, value in fields for word in f"{name} {value}".split()]
    assert text == "" or text.endswith("\n")


def test_a_text_that_is_too_long_ends_with_an_ellipsis():
    assert [shortened("ab cd", columns) for columns in (3, 4, 5)] == ["ab…", "ab…", "ab cd"]

"""Text from outside cannot move a terminal's cursor, change its colours or end a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madan.inert import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("holiday/ä 写.jpg", "holiday/ä 写.jpg"),
        ("a\x1b[31mred\x07", "a\\x1b[31mred\\x07"),
        ("two\nlines\r\t", "two\\nlines\\r\\t"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        ("\u2028\u200b", "\\u2028\\u200b"),
    ],
)
def test_what_does_not_print_is_shown_as_its_escape(text, shown):
    assert inert(text) == shown


@given(st.text(st.characters()), st.integers(1, 30))
def test_any_text_is_printable_and_as_short_as_asked(text, longest):
    assert inert(text).isprintable() and len(inert(text, longest)) <= longest
    assert inert(inert(text)) == inert(text)
    inert(text).encode()

"""Any text is shown as that text: in Markdown, in the HTML made of it, in LaTeX and in CSV."""

import csv
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from madan.report import escaping

# Texts made of what means something somewhere, and any other text.
SIGNS = list("\\`*_{}[]<>()#+-=.!|&~^%$\"'@:/\n\r\t\x00\u2028\x85 aZ0")
words = st.one_of(
    st.text(st.sampled_from(SIGNS), max_size=12),
    st.text(max_size=12),
    st.sampled_from(
        [
            "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](http://b.c)",
            "![i](j)", "**b**", "__b__", "~~s~~", "`c`", "a | b", "a\n| b | c |", "&lt;b&gt;",
            "<!-- c -->", "https://a.b", "=1+1", "=cmd|' /C calc'!A0", "+SAD", "-1", "@SUM(A1)",
            "\t=1", "\r=1", "\\input{x}", "a % b", "\\\\[3cm]", "[3cm]", "*", "$x$", "#1", "{a",
            "a}", "--", "``a''",
        ]
    ),
)  # fmt: skip
SHOWN_BY_PAGES = {"table", "thead", "tbody", "tr", "th", "td"}


class Cells(HTMLParser):
    """Collect the tags of HTML and the text of each cell of its tables."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.cells, self.other = set(), [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.replace("\n", "")

    def handle_comment(self, data):
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def rendered(markdown):
    """Render GitHub's Markdown as HTML, raw HTML let through as it is."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Cells(reader.render(markdown))


def decoded(latex):
    """Read what a reader of escaped LaTeX sees; fail at a sign that would have an effect."""
    named = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<",
        "textgreater": ">", "textbar": "|", "textendash": "–",
    }  # fmt: skip
    forms = r"\\([a-z]+)\{\}|\{\\char34\}|\{([\[\]*])\}|(\$\\pm\$)|\\([&%$#_{}])|(\{\})|(.)"
    text = ""
    for word, bare, plus, sign, empty, plain in re.findall(forms, latex, re.DOTALL):
        assert plain == "" or plain not in '\\~^&%$#_{}<>|"[]*\n\r'
        text += named[word] if word else bare or sign or plain or ("±" if plus else "")
        if not (word or bare or plus or sign or empty or plain):
            text += '"'
    return text


@given(words)
@example("  a \n b  ")
def test_text_is_on_one_line_and_only_white_space_and_unprintable_signs_change(text):
    line = escaping.one_line(text)
    assert len(line.splitlines()) <= 1
    assert line == escaping.one_line(line)
    if text.isprintable() and "  " not in text and text == text.strip():
        assert line == text


def test_white_space_of_any_kind_becomes_one_space():
    assert escaping.one_line(" a\n b\t\u2028c\r\n") == "a b c"
    assert escaping.one_line("a\x00b\u202ec") == "a\ufffdb\ufffdc"


def test_markup_of_html_is_shown_as_text():
    assert escaping.markdown("<b>&amp;") == "&lt;b&gt;&amp;amp;"


@given(words, words)
def test_cells_of_markdown_become_cells_of_html_with_that_text_and_no_other_tags(one, other):
    cells = [escaping.markdown(one), escaping.markdown(other)]
    page = rendered(f"| {cells[0]} | {cells[1]} |\n| --- | --- |\n| {cells[1]} | {cells[0]} |\n")
    assert page.tags <= SHOWN_BY_PAGES
    assert not page.other
    expected = [escaping.one_line(each) for each in (one, other, other, one)]
    assert [cell.strip() for cell in page.cells] == expected


@given(words)
def test_items_of_a_list_in_markdown_stay_text(text):
    page = rendered(f"- a {escaping.markdown(text)}\n- b\n")
    assert page.tags <= {"ul", "li", "p"}
    assert not page.other


@pytest.mark.parametrize("address", ["https://a.b", "http://a.b", "www.a.b", "WWW.a.b"])
def test_addresses_become_no_links(address):
    """GitHub makes links of them, but not of an escaped `:` or `.`."""
    assert re.search(r"\\:|(?i:www)\\\.", escaping.markdown(address))


def test_names_as_they_are_in_params_yaml_are_not_changed():
    for name in (
        "source-gta5",
        "+SAD+CCD",
        "+shared D_T",
        "drawn in the target's look",
        "31.0 ± 1.4",
    ):
        assert escaping.markdown(name) == name


@given(words)
def test_latex_shows_the_text_and_nothing_has_an_effect(text):
    assert decoded(escaping.latex(text)) == escaping.one_line(text)


def test_latex_keeps_hyphens_and_quotes_apart():
    assert escaping.latex("--") == "-{}-"
    assert escaping.latex("``a''") == "`{}`a'{}'"
    assert escaping.latex("a_b & 5 % ± – [x]") == r"a\_b \& 5 \% $\pm$ \textendash{} {[}x{]}"


@given(words)
def test_comment_of_latex_is_one_line(text):
    line = escaping.comment(text)
    assert line.startswith("% ") and len(line.splitlines()) == 1


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_csv_has_the_same_cells_and_no_formula(rows):
    frame = pd.DataFrame([(*row, -1.5, 2) for row in rows], columns=["=a", "b", "number", "n"])
    read = list(csv.reader(io.StringIO(escaping.csv(frame))))
    assert len(read) == len(rows) + 1 == len(escaping.csv(frame).splitlines())
    for row, line in zip(rows, read[1:], strict=True):
        assert line[2:] == ["-1.5", "2"]
        for text, cell in zip(row, line[:2], strict=True):
            assert not re.match(r"\s*[=+\-@＝＋－＠]", cell)
            plain = escaping.one_line(text)
            assert cell == plain or (cell == f"'{plain}" and plain[0] in "=+-@＝＋－＠")


def test_formula_gets_an_apostrophe_and_numbers_do_not():
    frame = pd.DataFrame({"setting": ["+SAD", "stage 1"], "difference": [-0.9, float("nan")]})
    assert escaping.csv(frame) == "setting,difference\n'+SAD,-0.9\nstage 1,\n"

"""Text of any origin shown as text: in Markdown and the HTML made of it, in LaTeX, in CSV.

Names and settings come from params.yaml and from files of other people. Whatever stands in them has
no effect in a page: no markup, no new line or column, no link, no formula of a spreadsheet.
"""

import re

import pandas as pd

# A backslash before ASCII punctuation is a literal sign in CommonMark (section 2.4). An underscore
# within a word is one anyway. `:` and `.` are here because GitHub turns addresses into links.
_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$]|(?<![a-z0-9])_|_(?![a-z0-9])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    # After \\ at the end of a row, [ and * would be read as its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "–": r"\textendash{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
# Two of these in a row would become a dash or another quotation mark.
_LIGATURE = re.compile(r"(?<=[-`'?!,])(?=[-`',])")
# Spreadsheets read a cell that begins with one of these as a formula; Japanese ones the wide forms.
_FORMULA = tuple("=+-@＝＋－＠")


def one_line(text: str) -> str:
    """Put a text on one line: white space becomes one space, an unprintable sign U+FFFD."""
    flat = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in flat)


def markdown(text: str) -> str:
    """Escape a text for a cell or paragraph of GitHub's Markdown, and for the HTML made of it."""
    plain = "".join(_HTML.get(sign, sign) for sign in one_line(text))
    return _MARKDOWN.sub(lambda found: "\\" + found[0], plain)


def latex(text: str) -> str:
    """Escape a text for a cell of a LaTeX table."""
    apart = _LIGATURE.sub("\0", one_line(text)).split("\0")
    return "{}".join("".join(_LATEX.get(sign, sign) for sign in part) for part in apart)


def comment(text: str) -> str:
    """Turn a text into one line of LaTeX that is not typeset."""
    return f"% {one_line(text)}"


def csv(frame: pd.DataFrame) -> str:
    """Write a table as CSV whose text cells are on one line and are no formulas.

    A text that a spreadsheet would read as a formula gets an apostrophe in front. Numbers stay as
    they are.
    """
    safe = frame.map(lambda cell: _cell(cell) if isinstance(cell, str) else cell)
    return safe.to_csv(index=False)


def _cell(text: str) -> str:
    plain = one_line(text)
    return f"'{plain}" if plain.startswith(_FORMULA) else plain

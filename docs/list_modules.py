"""Write the list of modules in docs/overview.md from their docstrings: make overview"""

import ast
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
OVERVIEW = PROJECT / "docs/overview.md"
BEGIN, END = "<!-- modules: written by make overview -->\n", "<!-- end of modules -->\n"


def summary(path: Path) -> str:
    """Return the first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def modules() -> str:
    """Return a Markdown list of all modules, a table for each package."""
    folders = sorted(path.parent for path in (PROJECT / "madan").rglob("__init__.py"))
    lines: list[str] = []
    for folder in folders:
        package = folder.relative_to(PROJECT)
        lines += [f"### `{package}/`", "", summary(folder / "__init__.py"), ""]
        lines += ["| module | what it does |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"| [`{path.name}`](../{package}/{path.name}) | {summary(path)} |")
        lines.append("")
    return "\n".join(lines).replace("|x|", "\\|x\\|")


def rewritten(text: str) -> str:
    """Return the overview with today's list."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{modules()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    before = OVERVIEW.read_text(encoding="utf-8")
    if "--check" in sys.argv and before != rewritten(before):
        sys.exit("docs/overview.md lists other modules than there are; run: make overview")
    OVERVIEW.write_text(rewritten(before), encoding="utf-8")

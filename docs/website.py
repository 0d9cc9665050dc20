"""A hook of mkdocs: pages from files outside docs/, and links to files of the repository."""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[1]
# Documents at the top of the repository, and their pages.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r'(?<=\]\()(?!\w+:|#|/)([^)\s#]+)|(?<=<img src=")([^"]+)')


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of PAGES, the API reference, and the files that any page links."""
    for name, page in PAGES.items():
        text = (PROJECT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_rewritten(text, PROJECT)))
    files.append(File.generated(config, "api.md", content=_reference()))
    for path in sorted(_linked()):
        files.append(File.generated(config, _copy(path), content=(PROJECT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with links to its neighbours and to copies of the repository's files."""
    generated = page.file.src_uri in {*PAGES.values(), "api.md"}
    return markdown if generated else _rewritten(markdown, PROJECT / "docs")


def _rewritten(markdown: str, folder: Path) -> str:
    """Return the text with the targets of links as the website has them."""

    def replaced(match: re.Match[str]) -> str:
        path = _path(match[0], folder)
        if path.startswith("docs/") and (PROJECT / path).is_file():
            return path.removeprefix("docs/")
        if path in ("docs/miniature", "docs/miniature/tables"):
            return "results.md"
        return PAGES.get(path) or (_copy(path) if (PROJECT / path).is_file() else match[0])

    return LINK.sub(replaced, markdown)


def _linked() -> set[str]:
    """Return the files of the repository, outside docs/, that a page links."""
    texts = [(PROJECT / name, PROJECT) for name in PAGES]
    texts += [(path, PROJECT / "docs") for path in (PROJECT / "docs").glob("*.md")]
    found = {
        _path(match[0], folder)
        for document, folder in texts
        for match in LINK.finditer(document.read_text(encoding="utf-8"))
    }
    return {
        path
        for path in found - PAGES.keys()
        if not path.startswith(("docs/", "..")) and (PROJECT / path).is_file()
    }


def _path(target: str, folder: Path) -> str:
    """Return the path of a link's target, from the top of the repository."""
    return os.path.relpath(os.path.normpath(folder / target), PROJECT)


def _copy(path: str) -> str:
    """Return where the website has a file of the repository: as text that a browser shows."""
    return f"source/{path}.txt"


def _reference() -> str:
    """Return the page that lists every public function of the package, from its docstrings."""
    names = sorted(
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        for path in (PROJECT / "madan").rglob("*.py")
    )
    modules = "\n\n".join(f"::: {name}" for name in names)
    about = "Public modules, classes and functions, in alphabetical order."
    return f"# Python API\n\n{about}\n\n{modules}\n"

"""Lint the documents: proselint with .proselintrc.json, and the words of the house style."""

import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
# Words and phrases that are no plain English here, and what to write instead.
HOUSE_STYLE = {
    r"anew": "again",
    r"of one's own": "your own",
    r"goes? on from": "starts from, resumes",
    r"stands? beside": "is beside",
    r"is there|are there(?! )": "exists",
    r"side by side": "in parallel",
    r"as if it": "as it would",
    r"in one's|one's own": "your",
    r"mend(ed|s|ing)?": "correct, repair",
    r"heed(ed|s)?": "handle, use",
    r"whatever the": "for any",
    r"to be had": "available",
    r"foretold": "predicted",
    r"what of": "which part of",
    r"are told from|is told from": "is distinguished from",
    r"else that of": "by default that of",
}
# Still to be rewritten: these pages are checked by proselint, not for the house style.
OLD = {"data.md", "deviations.md", "paper-map.md", "performance.md"}
# Written from the package, whose docstrings and descriptions have checks of their own.
GENERATED = re.compile(r"<!-- modules.*?<!-- end of modules -->", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)", re.DOTALL)


def documents(folder: Path) -> list[Path]:
    """Return the documents that people read, except the settings reference, which is generated."""
    top = [folder / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    pages = sorted((folder / "docs").glob("*.md"))
    return top + [page for page in pages if page.name != "settings.md"]


def against_the_house_style(text: str) -> list[str]:
    """Return a sentence for each phrase of a document that the house style does not allow."""
    blank = re.compile(r"[^\n]")
    for ignored in (GENERATED, CODE):
        text = ignored.sub(lambda match: blank.sub(" ", match[0]), text)
    return [
        f"{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; write: {instead}"
        for phrase, instead in HOUSE_STYLE.items()
        for match in re.finditer(rf"\b(?:{phrase})\b", text, re.IGNORECASE)
    ]


def main() -> int:
    """Print what is wrong, and return 1 if anything is."""
    paths = documents(PROJECT)
    style = [
        f"{path.relative_to(PROJECT)}:{problem}"
        for path in paths
        if path.name not in OLD
        for problem in against_the_house_style(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(style), end="\n" if style else "")
    config = ["--config", str(PROJECT / ".proselintrc.json")]
    linter = [str(Path(sys.executable).parent / "proselint"), *config, "check"]
    found = subprocess.run([*linter, *map(str, paths)]).returncode
    return 1 if style or found else 0


if __name__ == "__main__":
    sys.exit(main())

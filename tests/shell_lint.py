"""Run shellcheck over every shell script that git knows, and over Snakemake's job script."""

import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SHELLS = ("#!/bin/sh", "#!/bin/bash", "#!/usr/bin/env bash", "#!/usr/bin/env sh")


def scripts(project: Path) -> dict[str, str]:
    """Return the text of every file in git whose first line names a shell, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=project, stdout=subprocess.PIPE, check=True
    )
    found = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = project / name
        if path.is_file() and path.open("rb").read(2) == b"#!":
            text = path.read_text(encoding="utf-8")
            if text.startswith(SHELLS):
                found[name] = text
    return found


def main() -> int:
    """Return 0 if shellcheck has no remark on any script, else 1."""
    if shutil.which("shellcheck") is None:
        sys.exit("shellcheck is not installed: make setup installs it from requirements.txt.")
    failed = 0
    for name, text in scripts(PROJECT).items():
        # Snakemake writes its own command and properties into a job script.
        filled = text.replace("{exec_job}", "true").replace("{properties}", "{}")
        done = subprocess.run(["shellcheck", "-"], input=filled, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            print(f"{name}:\n{done.stdout}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

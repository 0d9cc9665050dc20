"""The command line: one command for each rule, and the same for people.

A module holds a group of commands, which parse, call and print. What decides a result lies in the
pipeline.
"""

import sys

from madan.cli import data, training, results, state  # isort: skip  # the order of --help
from madan import shortages
from madan.cli.app import app
from madan.engine import process
from madan.errors import Refusal
from madan.inert import inert

__all__ = ["app", "data", "main", "results", "state", "training"]


def main() -> None:
    """Run a command; what a person has to mend ends as one sentence and exit code 1."""
    process.begin()
    try:
        app()
    except Refusal as refusal:
        sys.exit(f"madan: {inert(str(refusal))}")
    except Exception as error:
        text = shortages.sentence(error)
        if text is None:
            raise
        sys.exit(f"madan: {inert(text)}")

"""What a message advises can be done: its commands exist, and it has nobody's data deleted.

Messages are the texts of the package that are no docstrings; of the command line also these, since
its help shows them.
"""

import ast
import functools
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from click.exceptions import UsageError
from conftest import PROJECT, params_yaml

from madan import cli, config
from madan.errors import Refusal
from madan.pipeline import artefacts, checks
from madan.pipeline.graph import Graph

# What stands in a message at these places, for example.
EXAMPLES = {
    "each['run']": "segmenters/pooled",
    "each['target']": "cityscapes",
    "each['split']": "test",
    "each['seed']": "0",
    "member.name": "gta5",
    "SPLIT": "train",
    "KIND/RUN": "segmenters/pooled",
    "bare[0]": "cityscapes",
    "path": "results/miniature/segmenters/pooled/seed0/certificate.json",
    "path.parent": "data/verified/miniature/gta5/train",
    "folder": "data/prepared/miniature/gta5/train-64x128/0-of-1",
    "_artefact(path)": "results/miniature/segmenters/pooled/seed0",
}
# After the name of the package in sentences that advise no command.
PROSE = {"did", "does", "trained", "wrote", "had", "makes", "has", "at"}
# What messages have a person delete, and why it is madan's to give away.
DELETED = {
    "{run.state}/{run.key}-* to train from the start": "the saved states of that very run",
    "{folder}/{key}-* to train from the start": "the saved states of that very run",
    "it to train from the start": "one saved state, which the sentence names",
    "them if you do not go back to these": "saved states of other settings; they are counted",
    "{path} and run again": "a certificate; the files beside it stay until they are made anew",
    "{folder} and run again": "a prepared or stylised set, which its job makes anew",
    "{path.parent} and run again": "an artefact: only of paths below results (checkpoints.py)",
    "the key": "a key of params.yaml",
    "one `base`": "a key of params.yaml",
}


class Message(NamedTuple):
    """A text of the program with its placeholders in braces, and where it stands."""

    place: str
    text: str


@functools.cache
def messages() -> list[Message]:
    found = []
    for path in sorted((PROJECT / "madan").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        parts = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node)
            if part is not node
        }
        for node in ast.walk(tree):
            hidden = id(node) in docstrings and path.parent.name != "cli"
            if hidden or id(node) in parts:
                continue
            if (text := written(node)) is not None:
                name = path.relative_to(PROJECT)
                for paragraph in re.split(r"\n\s*\n", text):
                    words = " ".join(paragraph.split())
                    found.append(Message(f"{name}:{node.lineno}", words))
    return found


@functools.cache
def params():
    return config.resolve(params_yaml())


def written(node: ast.AST) -> str | None:
    """The text of a literal; of one with placeholders, their expressions in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
        for part in node.values
    )


def filled(text: str) -> str:
    for name, example in EXAMPLES.items():
        text = text.replace(f"{{{name}}}", example)
    return text.replace("KIND/RUN", EXAMPLES["KIND/RUN"])


END = r"(?=[,;:)`]|\.(?:\s|$)| (?:and|or|-|with|to|by|has|makes|trained) |$)"


def advised(tool: str) -> list[tuple[str, list[str]]]:
    """Where a tool is called in the messages, and the words after its name."""
    found = []
    for place, text in messages():
        for match in re.finditer(rf"(?<![\w/.`'-]){tool}\b(?!/|\.|:)(.*?){END}", filled(text)):
            found.append((place, match[1].split()))
    return found


MADAN = [
    (place, words)
    for place, words in advised("madan")
    if not place.startswith("madan/pipeline/graph_figure.py")  # names of rules in a figure
    and words
    and re.fullmatch("[a-z-]+", words[0])
    and words[0] not in PROSE
]


def test_advice_is_found():
    tools = ("madan", "snakemake", "dvc")
    assert len(MADAN) > 20
    assert all(advised(tool) for tool in tools)


@pytest.mark.parametrize(("place", "words"), MADAN, ids=lambda each: str(each))
def test_a_command_of_madan_that_a_message_advises_is_one(place, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "load", params)
    command = typer.main.get_command(cli.app)
    context = command.make_context("madan", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, place
        try:
            context = command.make_context(name, rest, parent=context)
        except UsageError as error:
            pytest.fail(f"{place} advises madan {' '.join(words)}: {error.format_message()}")
    made = []

    def make(address, seed, planned, **_):
        artefact = artefacts.parse(address, seed or 0)
        checks.check(artefact, config.load())
        made.append(artefact)

    for group in (cli.data, cli.training, cli.results):
        monkeypatch.setattr(group, "make", make)
    if any(name in context.command_path for name in ("evaluate", "verify", "prepare", "export",
                                                     "table", "figure", "segment")):  # fmt: skip
        try:
            context.invoke(command.callback, **context.params)
        except Refusal as refusal:
            pytest.fail(f"{place} advises madan {' '.join(words)}: {refusal}")
        except typer.Exit as ended:
            assert ended.exit_code == 0, place
        assert made or context.params.get("partial"), place


def test_what_messages_have_snakemake_make_is_something_that_it_makes():
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    texts = [(PROJECT / "Snakefile").read_text()]
    texts += [path.read_text() for path in (PROJECT / "workflow/rules").glob("*.smk")]
    rules = {name for text in texts for name in re.findall(r"^rule (\w+):", text, re.MULTILINE)}
    graph = Graph(params())
    known = {str(graph.certificate(each)) for each in graph.everything()} | rules
    known |= {"results/miou.csv", "results/metrics.json"}
    count = 0
    for place, words in advised("snakemake"):
        if words[:1] in (["again"], ["makes"], ["data"]) or not words:
            continue
        targets = parser.parse_args(words).targets
        assert set(targets) <= known, (place, words)
        count += 1
    assert count > 8


def test_what_messages_have_dvc_do_is_something_that_it_does():
    from dvc.cli.parser import get_main_parser

    for place, words in advised("dvc"):
        try:
            get_main_parser().parse_args(shlex.split(" ".join(words)))
        except SystemExit:
            pytest.fail(f"{place} advises dvc {' '.join(words)}")


def test_no_message_has_anybody_delete_what_madan_did_not_make():
    found = {
        match[1].strip()
        for _, text in messages()
        for match in re.finditer(r"\b(?:[Dd]elete|[Rr]emove|rm -r\w*) (.+?)(?=[,;]|\.(?:\s|$)|$)",
                                 text)
    }  # fmt: skip
    assert found == DELETED.keys()


def test_only_weights_below_results_are_to_be_deleted():
    from madan.models import checkpoints

    damaged = [checkpoints._damaged(Path(path), ValueError("x")) for path in (
        "results/a/b.safetensors", "mine/b.safetensors", "/results/b.safetensors",
        "results/../b.safetensors", "b.safetensors")]  # fmt: skip
    assert ["delete" in text for text in damaged] == [True, False, False, False, False]

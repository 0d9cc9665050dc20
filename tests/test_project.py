"""The project holds together: levels of imports, pins, documents whose commands and names exist."""

import ast
import csv
import re
import shlex
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import prose_lint
import pytest
import shell_lint
from conftest import PROJECT, params_yaml
from ruamel.yaml import YAML

from madan import config
from madan.config import schema
from madan.pipeline import outs
from madan.pipeline.graph import Graph

PACKAGE = PROJECT / "madan"
# From the floor up: a module imports from its own room and from those before it.
ROOMS = (
    "", "config", "engine", "data", "miniature", "models", "methods", "evaluation", "report",
    "inference", "pipeline", "cli",
)  # fmt: skip
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
DOCUMENTS = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("madan.") for name in found} & MODULES.keys()


def room(name: str) -> str:
    return name.partition(".")[0] if name.partition(".")[0] in ROOMS else ""


@pytest.mark.parametrize("name", MODULES)
def test_imports_never_run_upwards(name):
    floor = ROOMS.index(room(name))
    assert not {other for other in imports(MODULES[name]) if ROOMS.index(room(other)) > floor}


def test_no_module_imports_itself_through_others():
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_every_room_says_what_belongs_there():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            assert len(ast.get_docstring(ast.parse(path.read_text())).split("\n\n")) > 1, path


def test_the_overview_lists_the_modules_as_they_are():
    code = [sys.executable, PROJECT / "docs/list_modules.py", "--check"]
    assert subprocess.run(code).returncode == 0


@pytest.mark.parametrize("word", ["GAN", "FCN", "domain"])
def test_the_loop_does_not_know_what_it_trains(word):
    code = (PACKAGE / "engine/training.py").read_text()
    assert not re.search(rf"\b{word}\b", code.split('"""', 2)[2].replace("# ", ""), re.IGNORECASE)


def test_the_package_does_not_know_snakemake():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.MULTILINE), path


def rows_of_miou(document: str) -> dict[str, list[str]]:
    """The rows of a document's table of mIoU: the three means by row."""
    line = r"^\| ([a-z0-9-]+) \| [a-z -]+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$"
    found = re.findall(line, (PROJECT / document).read_text(), re.MULTILINE)
    return {row: numbers for row, *numbers in found}


@pytest.mark.parametrize("document, count", [("README.md", 5), ("docs/results.md", 10)])
def test_numbers_of_the_first_run_in_the_documents_are_the_published_ones(document, count):
    with (PROJECT / "docs/miniature/miou.csv").open() as file:
        published = {line["row"]: line for line in csv.DictReader(file)}
    rows = rows_of_miou(document)
    assert len(rows) == count and list(rows) == [row for row in published if row in rows]
    for row, numbers in rows.items():
        means = [published[row][name] for name in ("miou19", "miou16", "miou13")]
        assert numbers == [f"{float(mean):.2f}" for mean in means], row


def test_numbers_of_the_ablation_in_the_results_are_the_published_ones():
    published = (PROJECT / "docs/miniature/tables/ablation.md").read_text()
    means = set(re.findall(r"[\d.]+ ± [\d.]+", published))
    gaps = set(re.findall(r"\| ([+-][\d.]+) \| ([+-][\d.]+) to ([+-][\d.]+) \|", published))
    results = (PROJECT / "docs/results.md").read_text().replace("−", "-").replace("**", "")
    line = r"^\| .+ \| ([\d.]+ ± [\d.]+) \| .*\| (?:(\S+) \((\S+) to (\S+)\))? ?\|$"
    rows = re.findall(line, results, re.MULTILINE)
    assert len(rows) == 14
    for mean, *gap in rows:
        assert mean in means and (tuple(gap) in gaps or not any(gap)), (mean, gap)


def test_rows_beside_the_papers_in_the_readme_are_the_published_ones():
    published = (PROJECT / "docs/miniature/tables/comparison.md").read_text()
    line = (
        r"^\| ([a-z0-9-]+) \|.*\| ([\d.]+ ± [\d.]+) \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \| 3 \|$"
    )
    means = dict(re.findall(line, published, re.MULTILINE))
    readme = (PROJECT / "README.md").read_text().split("## Reproduce the paper")[1]
    found = re.findall(r"\| not run \| ([\d.]+ ± [^|]*) \|$", readme, re.MULTILINE)
    rows = ("source-gta5", "source-synthia", "source-combined", "cycada-gta5", "cycada-synthia",
            "cycada-combined", "mdan", "madan", "oracle")  # fmt: skip
    assert " / ".join(found).split(" / ") == [means[row] for row in rows]


def test_the_readme_has_at_most_150_lines():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 150


def test_the_settings_reference_is_the_schema_as_it_is():
    code = [sys.executable, PROJECT / "docs/list_settings.py", "--check"]
    assert subprocess.run(code).returncode == 0


def test_the_house_style_names_line_and_replacement_and_ignores_code():
    text = "Made once.\n\n`anew` and\nit is made anew.\n"
    assert prose_lint.against_the_house_style(text) == ["4: 'anew'; write: again"]


def test_the_documents_follow_the_house_style():
    for path in prose_lint.documents(PROJECT):
        if path.name not in prose_lint.OLD:
            assert prose_lint.against_the_house_style(path.read_text()) == [], path.name


def test_every_page_is_in_the_navigation_of_the_website():
    navigation = str(YAML(typ="safe").load(PROJECT / "mkdocs.yml")["nav"])
    for path in (PROJECT / "docs").glob("*.md"):
        assert f"'{path.name}'" in navigation, path.name


def test_messages_in_the_troubleshooting_are_ones_that_the_code_has():
    sources = [*PACKAGE.rglob("*.py"), *(PROJECT / "workflow").rglob("*.smk")]
    # Literals of one message are joined, as Python joins them.
    code = "".join(re.sub(r'"\s*f?"', "", path.read_text()) for path in sources)
    text = (PROJECT / "docs/troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(messages) > 15
    assert [m for m in messages if m not in code and m != "Unable to read RWLock-file"] == []


def test_what_only_predicts_does_not_import_torchs_compiler():
    """2 s of every job that scores or stylises; algorithms are deterministic all the same."""
    code = "import sys, torch; from madan.engine import training; training.begin(0, 1); "
    code += "assert torch.are_deterministic_algorithms_enabled(); "
    code += "sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_commands_that_need_no_torch_do_not_import_it():
    code = "import sys, madan.cli, madan.data.verify, madan.miniature.writer, madan.report.tables; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def pins(lines) -> dict[str, str]:
    pairs = (line.split(";")[0].split("#")[0].strip().split("==") for line in lines if "==" in line)
    return {name.split("[")[0].lower().replace("_", "-"): version for name, version in pairs}


def test_requirements_hold_every_pin_of_the_project():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = pins([*project["dependencies"], *project["optional-dependencies"]["dev"]])
    locked = pins((PROJECT / "requirements.txt").read_text().splitlines())
    assert {name: locked.get(name) for name in wanted} == wanted
    assert len(wanted) == len(project["dependencies"]) + len(
        project["optional-dependencies"]["dev"]
    )


def test_the_lint_of_shell_scripts_reads_every_one():
    assert set(shell_lint.scripts(PROJECT)) == {
        ".ci/run", "profiles/sbatch/job.sh", "profiles/sbatch/status", "profiles/sbatch/submit",
    }  # fmt: skip


def test_environment_is_python_and_the_same_requirements():
    environment = YAML(typ="safe").load(PROJECT / "environment.yml")
    python, pip, packages = environment["dependencies"]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert python == "python=3.11" and project["requires-python"].startswith(">=3.11")
    assert pip == "pip" and packages == {"pip": ["-r requirements.txt", "-e ."]}


def commands(text: str, tools: str = "make|madan|snakemake") -> list[str]:
    """Lines of the shell blocks of a document that call one of these tools."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line.split("#")[0] for line in lines if re.match(rf"({tools})\b", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_the_documents_exist(document):
    from madan.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(document.read_text()):
        tool, *words = line.split()
        words = [word for word in words if not word.startswith("-") and "=" not in word]
        if tool == "make":
            assert set(words) <= targets, line
        elif tool == "madan" and words:
            assert words[0] in known, line


def test_dvc_commands_of_the_documents_are_ones_that_dvc_takes():
    from dvc.cli.parser import get_main_parser

    parser = get_main_parser()
    lines = [line for path in DOCUMENTS for line in commands(path.read_text(), "dvc")]
    assert len(lines) > 10
    for line in lines:
        parser.parse_args(shlex.split(line)[1:])  # exits where DVC knows no such word


def test_dvc_looks_at_every_section_of_the_settings():
    stage = YAML(typ="safe").load(PROJECT / "dvc.yaml")["stages"]["pipeline"]
    # `miniature` stands in `scales`; DVC refuses a key that the file does not have.
    assert set(stage["params"]) == set(schema.Params.model_fields) - {"miniature"}


def test_dvc_versions_every_place_where_results_lie(raw):
    """A kind of artefact that the tables need and no out holds would be lost to a fresh clone."""
    named = YAML(typ="safe").load(PROJECT / "dvc.yaml")["stages"]["pipeline"]["outs"]
    assert all(settings == {"persist": True} for out in named for settings in out.values())
    places = [next(iter(out)).replace("${scale}", "miniature") for out in named]
    graph = Graph(config.resolve(raw))
    for artefact in graph.everything():
        path = graph.certificate(artefact)
        assert any(path.is_relative_to(place) for place in places), path


def test_the_folders_among_dvcs_outputs_are_those_that_its_first_command_makes(raw):
    stage = YAML(typ="safe").load(PROJECT / "dvc.yaml")["stages"]["pipeline"]
    assert "python -m madan.pipeline.outs" in stage["cmd"]
    named = [Path(next(iter(out)).replace("${scale}", "miniature")) for out in stage["outs"]]
    assert {path for path in named if not path.suffix} == set(outs.folders(config.resolve(raw)))


def test_no_command_of_dvc_holds_a_value_of_the_settings():
    for stage in YAML(typ="safe").load(PROJECT / "dvc.yaml")["stages"].values():
        assert "$" not in str(stage["cmd"])


def test_artifacts_and_plots_of_dvc_are_results_that_the_tables_need(raw):
    text = (PROJECT / "dvc.yaml").read_text().replace("${scale}", "miniature")
    said = YAML(typ="safe").load(text.replace("${seeds[0]}", "0"))
    graph = Graph(config.resolve(raw))
    made = {graph.folder(artefact) for artefact in graph.everything()}
    shown = [path for plot in said["plots"] for each in plot.values() for path in each["y"]]
    for path in map(Path, [*shown, *(each["path"] for each in said["artifacts"].values())]):
        if path != Path("results/miou.csv"):
            assert path.parent in made or any(path in folder.parents for folder in made), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_the_documents_link_exist(document):
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), f"{document.name} links {link}"


def test_names_in_the_paper_map_exist():
    """Every `module.name`, `params.key` and `tests/file.py::test` in the map is there."""
    text = (PROJECT / "docs/paper-map.md").read_text()
    for module, name in re.findall(r"`([\w/]+)\.py: ?([\w.]+)`", text):
        code = (PACKAGE / f"{module}.py").read_text()
        assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), f"{module}.py: {name}"
    raw = params_yaml()
    for key in re.findall(r"`params: ([\w.-]+)`", text):
        section = raw
        for part in key.split("."):
            assert part in section, key
            section = section[part]
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", text):
        assert f"def {test}(" in (PROJECT / "tests" / file).read_text(), f"{file}::{test}"


def test_every_promise_names_tests_that_exist():
    text = (PROJECT / "docs/reliability.md").read_text() + (PROJECT / "SECURITY.md").read_text()
    tests = "".join(path.read_text() for path in (PROJECT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_nothing_under_results_is_in_git():
    tracked = subprocess.run(["git", "ls-files", "results", "data", "state"], cwd=PROJECT,
                             capture_output=True, text=True).stdout  # fmt: skip
    assert tracked == ""


def test_what_dvc_writes_beside_raw_data_can_be_added_to_git_and_raw_data_cannot(tmp_path):
    """At any depth below data/raw; docs/dvc.md says to add it."""
    (tmp_path / ".gitignore").write_text((PROJECT / ".gitignore").read_text())
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    kept = ["city.dvc", ".gitignore", "my/city.dvc", "my/.gitignore", "my/own/city.dvc"]
    left = ["city/a.png", "weights.pth", "my/city/a.png", "my/own/deep/er/a.jpg", "my/weights.pth"]
    for name in kept + left:
        (tmp_path / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/raw" / name).touch()
    (tmp_path / "data/miniature/my").mkdir(parents=True)
    (tmp_path / "data/miniature/my/city.dvc").touch()
    said = subprocess.run(
        ["git", "check-ignore", *(f"data/raw/{name}" for name in kept + left)],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.split() == [f"data/raw/{name}" for name in left]
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    there = ["git", "ls-files", "data"]
    added = subprocess.run(there, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert sorted(added.stdout.split()) == sorted(f"data/raw/{name}" for name in kept)

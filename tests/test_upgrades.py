"""What the project uses of Snakemake: its documented language, and one file of exceptions."""

import inspect
import re
from dataclasses import fields

from conftest import PROJECT

EXCEPTIONS = PROJECT / "workflow/rules/snakemake.smk"
FILES = [PROJECT / "Snakefile", *sorted((PROJECT / "workflow/rules").glob("*.smk"))]
# `workflow.basedir` and `workflow.cores` are in Snakemake's documentation of rules.
DOCUMENTED = {"basedir", "cores"}


def code(path) -> str:
    return re.sub(r"#.*", "", path.read_text())


def test_rules_use_documented_attributes_of_the_workflow_alone():
    for path in FILES:
        used = set(re.findall(r"\bworkflow\.(\w+)", code(path))) - {"rst"}
        assert path == EXCEPTIONS or used <= DOCUMENTED, (path, used)


def test_no_module_of_snakemake_is_imported():
    for path in [*FILES, *(PROJECT / "madan").rglob("*.py")]:
        assert not re.search(r"^\s*(from|import) snakemake", code(path), re.MULTILINE), path


def test_the_exceptions_stand_in_one_short_file():
    assert len(EXCEPTIONS.read_text().splitlines()) <= 30
    used = set(re.findall(r"\bworkflow\.([\w.]+)", code(EXCEPTIONS)))
    assert used == {
        "scheduler.job_rate_limiter", "dag_settings.targets", "dag_settings", "default_target",
        "get_rule",
        "is_rule",
    }  # fmt: skip


def test_snakemake_still_has_what_the_exceptions_change():
    from snakemake.scheduling.job_scheduler import JobScheduler

    text = inspect.getsource(JobScheduler)
    assert "self.job_rate_limiter is not None" in text, (
        "Snakemake's scheduler has no job_rate_limiter any more: remove it from "
        "workflow/rules/snakemake.smk and see whether Snakemake still looks for jobs every second "
        "(test_workflow.py::test_snakemake_looks_for_jobs_only_when_one_has_ended)."
    )


def test_snakemake_still_says_what_it_is_asked_for():
    import snakemake.cli  # noqa: F401  # Imported first, or the next import is circular.
    from snakemake.workflow import Workflow

    for name in ("dag_settings", "default_target", "get_rule", "is_rule"):
        assert hasattr(Workflow, name) or name in inspect.getsource(Workflow), (
            f"Snakemake's workflow has no {name} any more: without it workflow/rules/snakemake.smk "
            "cannot tell which datasets the targets of the command line need; name all instead."
        )


def test_snakemake_still_says_which_jobs_are_forced():
    from snakemake.settings.types import DAGSettings

    names = {field.name for field in fields(DAGSettings)}
    assert names >= {"forcerun", "until", "omit_from"}, (
        "Snakemake's settings of the graph have other names: without them "
        "workflow/rules/snakemake.smk cannot tell when forced jobs hide what is out of date "
        "(test_workflow.py::test_what_a_forced_job_hides_is_no_success)."
    )


def test_nothing_of_snakemakes_folder_is_read_or_versioned():
    for path in [*FILES, PROJECT / "dvc.yaml", *(PROJECT / "madan").rglob("*.py")]:
        assert ".snakemake" not in code(path), path

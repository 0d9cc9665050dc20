"""What runs is what its sources say: code is changed with its time and size kept."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import PROJECT

from madan.pipeline import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that may be edited."""
    monkeypatch.chdir(tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PROJECT / "madan", tmp_path / "madan", ignore=ignored)


def edit(path, old, new):
    """Change a file as rsync and archives do: its time, and here its size, are those of before."""
    before, text = path.stat(), path.read_text()
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text.replace(old, new))
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(path)
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def says(package, module, value):
    command = [sys.executable, "-c", f"import madan.{module} as it; print(it.{value})"]
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("module", ["inert", "pipeline.code", "pipeline.jobs.prepare"])
def test_code_changed_with_its_time_and_size_kept_is_what_runs(package, module):
    path = package.joinpath(*module.split(".")).with_suffix(".py")
    path.write_text(path.read_text() + "\nCONSTANT = 1\n")
    assert says(package, module, "CONSTANT") == says(package, module, "CONSTANT") == "1\n"
    edit(path, "CONSTANT = 1", "CONSTANT = 2")
    assert says(package, module, "CONSTANT") == "2\n"


def test_code_changed_with_its_time_and_size_kept_has_another_digest(package):
    path = package / "methods/losses.py"
    path.write_text(path.read_text() + "\nCONSTANT = 1\n")
    before = code.code(package, "pipeline.jobs.segment")
    edit(path, "CONSTANT = 1", "CONSTANT = 2")
    after = code.code(package, "pipeline.jobs.segment")
    assert {name for name in after if after[name] != before[name]} == {"methods.losses"}


def test_bytecode_is_kept_for_the_next_process(package):
    says(package, "inert", "__name__")
    [cached] = (package / "__pycache__").glob("inert.*.pyc")
    before = cached.stat().st_mtime_ns
    says(package, "inert", "__name__")
    assert cached.stat().st_mtime_ns == before

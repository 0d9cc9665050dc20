"""Folders that two clones share, links to another disk, and file systems without locks."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import threading

import pytest
from conftest import PROJECT, tiny
from test_graph import make
from test_training import Walk

from madan import config, files
from madan.engine import gpu, training
from madan.errors import Refusal
from madan.pipeline import certificates
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job, verify

RUN = parse("segmenters/source-gta5")
SHARD = parse("prepared/gta5/train/0")


@pytest.fixture
def clones(raw, tmp_path, monkeypatch):
    """Two folders of one project that share results and data, and their graph."""
    graph = Graph(config.resolve(tiny(raw)))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    for name in ("results", "data"):
        (first / name).mkdir()
        (second / name).symlink_to(first / name)
    monkeypatch.chdir(first)
    make(graph, RUN)
    return graph, first, second


@pytest.mark.parametrize("artefact", [RUN, SHARD], ids=str)
def test_jobs_of_two_clones_for_one_artefact_see_each_other(clones, monkeypatch, artefact):
    graph, first, second = clones
    with Job(graph, artefact).publish() as out:
        (out / "file").write_text("of the first")
        monkeypatch.chdir(second)
        with pytest.raises(Refusal, match="is being made by another process, which holds"):
            with Job(graph, artefact).publish() as other:
                (other / "file").write_text("of the second")
        assert (out / "file").read_text() == "of the first"
        monkeypatch.chdir(first)
    assert (graph.folder(artefact) / "file").read_text() == "of the first"
    verify(graph, artefact)


def test_many_jobs_of_two_clones_leave_one_whole_artefact_and_nothing_else(clones):
    graph, first, second = clones
    code = (
        "from pathlib import Path; import sys; from madan import files\n"
        "for k in range(60):\n"
        "    try:\n"
        "        with files.locked(Path('results/shared')):\n"
        "            taken = Path('results/taken'); taken.open('x').close(); taken.unlink()\n"
        "    except files.Refusal: pass\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    jobs = [
        subprocess.Popen([shutil.which("python"), "-c", code], cwd=folder, env=env)
        for folder in (first, second, first)
    ]
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    assert not list((first / "results").glob("*taken*")) + list((first / "results").glob(".*"))


def test_an_input_that_another_clone_makes_anew_meanwhile_is_not_certified_as_read(clones):
    graph, _, _ = clones
    before = certificates.read(graph.certificate(RUN))
    with pytest.raises(Refusal, match="inputs of segmenters/source-gta5 seed 0 were made anew"):
        with Job(graph, RUN).publish() as out:
            (out / "file").write_text("made from the shard of before")
            make(graph, SHARD, "other")
    assert certificates.read(graph.certificate(RUN)) == before
    assert (graph.folder(RUN) / "file").read_text() == "x"


@pytest.mark.parametrize("level", ["seed0", "source-gta5", "segmenters", "results"])
def test_a_folder_that_is_a_link_to_another_disk_is_made_anew_as_often_as_needed(
    clones, tmp_path, level
):
    graph, _, _ = clones
    folder = graph.folder(RUN)
    [linked] = [path for path in (folder, *folder.parents) if path.name == level]
    elsewhere = tmp_path / "disk" / "there"
    elsewhere.parent.mkdir()
    shutil.move(linked, elsewhere)
    linked.symlink_to(elsewhere)
    for text in ("one", "two", "three"):
        make(graph, RUN, text)
        assert (folder / "file").read_text() == text
        verify(graph, RUN)
        assert linked.is_symlink() and linked.resolve() == elsewhere
    hidden = [*folder.parent.glob(".*"), *elsewhere.parent.glob(".*")]
    assert [path for path in hidden if path.name not in (".", "..")] == []


def test_a_link_to_a_folder_that_is_gone_gets_it_back(clones, tmp_path):
    graph, _, _ = clones
    folder = graph.folder(RUN)
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "disk" / "there")
    make(graph, RUN, "again")
    assert (tmp_path / "disk/there/file").read_text() == "again"


def publish(graph):
    make(graph, RUN)


def read(graph):
    verify(graph, RUN)


def train(graph):
    run = training.Run("a run", 0, 1, 1, 1, files.Path("state/run"), "key", {})
    training.fit(Walk(), run, files.Path("log.csv"))


def lease(graph):
    gpu.lease(1, environment={"MADAN_GPUS": "1"})


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("act", [publish, read, train, lease])
def test_a_file_system_without_locks_is_one_sentence(clones, monkeypatch, act, number):
    graph, _, _ = clones

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(Refusal) as refusal:
        act(graph)
    said = str(refusal.value)
    assert re.match(r"\S+ is on a file system without file locks \(.+\), so jobs could not", said)
    assert "\n" not in said and said.count(". ") == 0
    assert not list(graph.folder(RUN).parent.glob(".*.new"))


def test_a_reader_waits_for_the_reader_before(clones):
    from madan.pipeline import contents

    graph, _, _ = clones
    done = threading.Event()
    with contents.one_reader(RUN, graph.params):
        threading.Thread(target=lambda: (verify(graph, RUN), done.set()), daemon=True).start()
        assert not done.wait(0.2)
    assert done.wait(10)

"""Saved states: sealed, two kept, of one number of processes, nothing left of a full disk."""

import errno

import pytest
import torch

from madan.engine import distributed, resume
from madan.errors import Refusal

CPU = torch.device("cpu")
CONTENT = {"step": 3, "modules": {"F": {"w": torch.arange(5.0)}}, "log": [{"loss": 0.1}]}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back(tmp_path):
    resume.write(tmp_path, "a.b", 3, CONTENT)
    state = resume.read(tmp_path, "a.b", CPU)
    assert torch.equal(state["modules"]["F"]["w"], torch.arange(5.0))
    assert state["log"] == [{"loss": 0.1}]


def test_the_two_newest_are_kept(tmp_path):
    for step in (3, 6, 9, 12):
        resume.write(tmp_path, "k", step, CONTENT)
    assert names(tmp_path) == ["k-step12-0of1.pt", "k-step9-0of1.pt"]


def test_states_of_other_settings_are_left_alone(tmp_path):
    for key in ("k", "k-step1", "other"):
        for step in (3, 6):
            resume.write(tmp_path, key, step, CONTENT)
    assert [saved.step for saved in resume.found(tmp_path, "k")] == [3, 6]
    assert resume.read(tmp_path, "k.", CPU) is None


def test_the_newest_goes_by_its_number_not_by_its_name(tmp_path):
    for step in (999, 1000):
        resume.write(tmp_path, "k", step, CONTENT | {"step": step})
    assert resume.read(tmp_path, "k", CPU)["step"] == 1000


@pytest.mark.parametrize("place", [0, 100, -1, -40, -70])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path, place):
    resume.write(tmp_path, "k", 3, CONTENT)
    [path] = tmp_path.iterdir()
    assert resume.is_whole(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    assert not resume.is_whole(path)


@pytest.mark.parametrize("more", [b"", b"x", b"\nsha256 " + b"0" * 64])
def test_a_file_of_another_kind_or_with_more_behind_it_is_not_whole(tmp_path, more):
    torch.save(CONTENT, tmp_path / "k-step3-0of1.pt")
    with (tmp_path / "k-step3-0of1.pt").open("ab") as file:
        file.write(more)
    assert not resume.is_whole(tmp_path / "k-step3-0of1.pt")


def test_a_full_disk_while_saving_leaves_the_state_before_and_nothing_else(tmp_path, monkeypatch):
    resume.write(tmp_path, "k", 3, CONTENT)

    def full(self):
        self.file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resume._Sealed, "close", full)
    with pytest.raises(OSError, match="No space left"):
        resume.write(tmp_path, "k", 6, CONTENT)
    assert names(tmp_path) == ["k-step3-0of1.pt"]


def test_half_a_write_is_never_taken_for_a_state(tmp_path):
    resume.write(tmp_path, "k", 3, CONTENT)
    (tmp_path / "0of1.new").write_bytes((tmp_path / "k-step3-0of1.pt").read_bytes()[:50])
    assert resume.read(tmp_path, "k", CPU)["step"] == 3
    resume.forget(tmp_path, "k")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("saved_by", "read_by"), [(1, 2), (2, 1), (4, 2)])
def test_another_number_of_processes_is_refused_with_both(tmp_path, monkeypatch, saved_by, read_by):
    monkeypatch.setattr(distributed, "size", lambda: saved_by)
    resume.write(tmp_path, "k", 3, CONTENT)
    monkeypatch.setattr(distributed, "size", lambda: read_by)
    monkeypatch.setattr(distributed, "_sum", lambda tensor: None)
    monkeypatch.setattr(distributed, "_device", lambda: CPU)
    match = f"saved by {saved_by} processes and this is a run of {read_by}"
    with pytest.raises(Refusal, match=match):
        resume.read(tmp_path, "k", CPU)

"""What commands write where the user says: nothing of the user's is replaced."""

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madan import outputs
from madan.errors import Refusal
from madan.outputs import Outputs

ODD = ["plain.png", "new\nline.png", "back\\slash\\n.png", "\x1b[31mred.png", "deep/er/ä.png",
       "not utf-8 \udcff.png", "  spaces ", "a" * 251 + ".png"]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_own_files_are_replaced_and_changed_ones_are_not(tmp_path, name):
    path = Outputs(tmp_path, "predict").write(name, b"one")
    Outputs(tmp_path, "predict").write(name, b"two")
    assert path.read_bytes() == b"two"
    Outputs(tmp_path, "stylise").write(name, b"three")  # another command's, but madan's
    path.write_bytes(b"the user's")
    for act in (lambda o: o.require([name]), lambda o: o.write(name, b"four")):
        with pytest.raises(Refusal, match="was not written by madan, or was changed") as caught:
            act(Outputs(tmp_path, "predict"))
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert path.read_bytes() == b"the user's"


@pytest.mark.parametrize("kind", ["file", "empty", "link", "folder", "dangling"])
def test_what_is_the_users_is_left_as_it_is(tmp_path, kind):
    path, other = tmp_path / "out/a.png", tmp_path / "other.png"
    path.parent.mkdir()
    match kind:
        case "file" | "empty":
            path.write_bytes(b"mine" if kind == "file" else b"")
        case "link":
            other.write_bytes(b"mine")
            path.symlink_to(other)
        case "folder":
            path.mkdir()
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
    before = sorted(os.walk(tmp_path))
    with pytest.raises(Refusal, match="not written by madan"):
        Outputs(tmp_path / "out", "predict").require(["new.png", "a.png"])
    with pytest.raises(Refusal, match="not written by madan"):
        Outputs(tmp_path / "out", "predict").write("a.png", b"ours")
    assert sorted(os.walk(tmp_path)) == before


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "overlay").write_bytes(b"mine")
    with pytest.raises(Refusal, match="overlay is no folder"):
        Outputs(tmp_path, "predict").require(["overlay/a.png"])
    with pytest.raises(Refusal, match="overlay is no folder"):
        Outputs(tmp_path / "overlay", "predict").require(["a.png"])


def test_the_same_content_is_no_loss(tmp_path):
    (tmp_path / "miou.csv").write_bytes(b"same")
    Outputs(tmp_path, "publish").write("miou.csv", b"same")
    Outputs(tmp_path, "publish").write("miou.csv", b"other")
    assert (tmp_path / "miou.csv").read_bytes() == b"other"


def test_a_command_killed_between_list_and_file_knows_both_contents(tmp_path, monkeypatch):
    Outputs(tmp_path, "predict").write("a.png", b"one")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Outputs(tmp_path, "predict").write("a.png", b"two")
    monkeypatch.undo()
    assert (tmp_path / "a.png").read_bytes() == b"one"
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", ".madan-predict.sha256"}
    Outputs(tmp_path, "predict").write("a.png", b"three")
    assert (tmp_path / "a.png").read_bytes() == b"three"


def test_lists_do_not_grow_when_the_same_is_written_again(tmp_path):
    for _ in range(5):
        Outputs(tmp_path, "predict").write("a.png", b"one")
    assert outputs.list_of(tmp_path, "predict").read_text().count("\n") == 1


def test_lists_are_those_of_sha256sum(tmp_path):
    for name in ODD:
        if "\udcff" not in name:
            Outputs(tmp_path, "predict").write(name, name.encode())
    command = ["sha256sum", "--check", "--strict", ".madan-predict.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0"), min_size=1),
                       st.text("0123456789abcdef", min_size=64, max_size=64)))  # fmt: skip
def test_any_names_come_back_from_their_lines(files):
    text = "".join(outputs.line(name, digest) for name, digest in files.items())
    assert dict(outputs.parsed(text)) == files


@given(st.text())
def test_any_text_can_be_read_as_a_list(text):
    for name, digest in outputs.parsed(text):
        assert name and len(digest) == 64


def test_files_have_the_rights_that_other_programs_give(tmp_path):
    Outputs(tmp_path, "predict").write("a.png", b"one")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_of_madans_with_a_file_of_the_users_is_not_replaced(tmp_path):
    (tmp_path / "labelIds").mkdir()
    (tmp_path / "labelIds/a.png").touch()
    (tmp_path / "SHA256SUMS").write_text(outputs.line("labelIds/a.png", "0" * 64))
    (tmp_path / "digest").touch()
    outputs.require_own(tmp_path, ["digest"])
    outputs.require_own(tmp_path / "nowhere", [])
    (tmp_path / "labelIds/notes.txt").touch()
    with pytest.raises(Refusal, match=r"labelIds/notes.txt was not written by madan.*move that"):
        outputs.require_own(tmp_path, ["digest"])

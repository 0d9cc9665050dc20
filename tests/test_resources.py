"""No disk, no quota, no right to write, no file handles, no memory: one sentence, nothing torn.

Every command that writes runs in a small world in which it ran well before, and is then to make the
same again while something that it needs is missing. What lies there afterwards is what lay there.
"""

import builtins
import contextlib
import errno
import io
import os
import resource
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import World, params_yaml, tiny
from PIL import Image

from madan import cli, config, files, folders, outputs, shortages
from madan.data import rasters
from madan.engine import process
from madan.miniature import writer
from madan.models import checkpoints, tensors
from madan.models.generator import Generator
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.publishing import Job

SCORED = "segmenters/cyclegan-gta5"
COMMANDS = {
    "miniature": "miniature gta5",
    "miniature of the target": "miniature cityscapes",
    "verify": "verify gta5/train",
    "prepare": "prepare gta5/train/0",
    "import": "import judge",
    "translate": "translate cyclegan-gta5",
    "stylise": "stylise cyclegan-gta5 gta5",
    "segment": "segment cyclegan-gta5",
    "adapt": "adapt cycada",
    "evaluate": f"evaluate {SCORED} cityscapes/test",
    "table": "table miou",
    "figure": "figure table",
    "export stylised": "export stylised cyclegan-gta5 gta5",
    "export predictions": f"export predictions {SCORED} cityscapes/test",
    "publish": "publish shown",
    "predict": "predict photo.png --model cyclegan-gta5 --out seen",
    "stylise photos": "stylise cyclegan-gta5 gta5 --images photo.png --out styled",
}
BEFORE = ["verify cityscapes/train", "verify cityscapes/test", "prepare cityscapes/train/0",
          "prepare cityscapes/test/0"]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world in which every command ran once."""
    with pytest.MonkeyPatch.context() as patched:
        params = tiny(params_yaml(), ("cyclegan-gta5",))
        for splits in params["miniature"]["images"].values():
            splits.update(dict.fromkeys(splits, 4))
        params["miniature"]["size"] = [32, 64]
        for domain in params["domains"].values():
            if "size" in domain:
                domain["size"] = [32, 64]
        for section in ("segmenter", "translator", "adaptation"):
            params["training"][section] |= {"batch": 2, "crop": [32, 64], "steps": 2}
        params["adaptations"]["cycada"] = {
            "method": "adda", "start": "cyclegan-gta5", "target": "cityscapes",
        }  # fmt: skip
        params["figures"] = {"table": {"shows": "heatmap"}}
        params["released"] = {"judge": {"file": "judge.pth", "network": "generator"}}
        made = World(tmp_path_factory.mktemp("resources"), params)
        patched.chdir(made.root)
        patched.setattr(process, "begin", lambda: None)
        sizes = config.load().networks.generator.model_dump()
        torch.save(Generator(**sizes).state_dict(), "judge.pth")
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (32, 64, 3), np.uint8)).save("photo.png")
        words = list(COMMANDS.values())
        for line in [*words[:3], *BEFORE, *words[3:]]:
            assert command(line) in (0, None), line
        made.before = lying(made.root)
        yield made


def command(line: str):
    """Run a command in this process; its exit code, or the sentence with which it ended."""
    argv, sys.argv = sys.argv, ["madan", *line.split()]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
    finally:
        sys.argv = argv
    return 0


def lying(root) -> dict[str, bytes]:
    """The bytes of every file of results and data, and of what was written for a person."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for place in ("results", "data", "shown", "seen", "styled", "judge.pth", "photo.png")
        for path in [root / place, *(root / place).rglob("*")]
        if path.is_file() and path.suffix != ".lock"
    }


def restore(world) -> None:
    for path in lying(world.root).keys() - world.before.keys():
        (world.root / path).unlink()
    for path, data in world.before.items():
        place = world.root / path
        if not place.exists() or place.read_bytes() != data:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


@contextlib.contextmanager
def limited(kind: int, soft: int):
    """Have the kernel refuse more than so much of a resource."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def full(world, size: int):
    """Files end at a size, as on a full disk: an error of every write beyond it, also of C's."""
    return limited(resource.RLIMIT_FSIZE, size)


def no_handles(world, spare: int):
    free = [os.dup(0) for _ in range(spare + 1)]
    for number in free:
        os.close(number)
    return limited(resource.RLIMIT_NOFILE, free[-1])


@contextlib.contextmanager
def failing(error, at: int):
    """From the at-th time on that something is to be made or opened to be written, it fails."""
    count = 0

    def refuse(path) -> None:
        nonlocal count
        if isinstance(path, int) or str(path).startswith(("/dev/", "/proc/")):
            return
        count += 1
        if count > at:
            raise error(str(path))

    def opening(before):
        def opened(file, mode="r", *more, **named):
            if set(mode) & set("wax+"):
                refuse(file)
            return before(file, mode, *more, **named)

        return opened

    def low(before):
        def opened(path, flags, *more, **named):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                refuse(path)
            return before(path, flags, *more, **named)

        return opened

    def making(before):
        def made(path, *more, **named):
            refuse(path)
            return before(path, *more, **named)

        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(io, "open", opening(io.open))
        patched.setattr(builtins, "open", opening(builtins.open))
        patched.setattr(os, "open", low(os.open))
        for name in ("mkdir", "rename", "replace"):
            patched.setattr(os, name, making(getattr(os, name)))
        yield


def system(number: int):
    """The error of a number as the system raises it for a path."""
    return lambda path: OSError(number, os.strerror(number), path)


FAULTS = {
    "disk full at the first byte": lambda world: full(world, 0),
    "disk full after 40 bytes": lambda world: full(world, 40),
    "quota": lambda world: failing(system(errno.EDQUOT), 0),
    "quota after 3 files": lambda world: failing(system(errno.EDQUOT), 3),
    "disk full at a rename": lambda world: failing(system(errno.ENOSPC), 5),
    "read-only": lambda world: failing(system(errno.EROFS), 0),
    "no handles": lambda world: no_handles(world, 0),
    "one handle": lambda world: no_handles(world, 1),
    "no memory": lambda world: failing(MemoryError, 2),
    "no handles of the system": lambda world: failing(system(errno.ENFILE), 1),
}


# Every command meets some faults and every fault some commands; `make faults` has all pairs.
PAIRS = [
    (name, fault)
    for i, name in enumerate(COMMANDS)
    for j, fault in enumerate(FAULTS)
    if "MADAN_FAULTS" in os.environ or (i + j) % 3 == 0
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), PAIRS)
def test_what_a_command_lacks_is_one_sentence_and_leaves_what_was_there(
    world, monkeypatch, capsys, name, fault
):
    """Some commands work with one handle, or rename fewer files: then they make the same."""
    monkeypatch.chdir(world.root)
    monkeypatch.setattr(process, "begin", lambda: None)
    with FAULTS[fault](world):
        ended = command(COMMANDS[name])
    said = ended if isinstance(ended, str) else capsys.readouterr().err
    left = {path for path in lying(world.root) if "/." in path} - world.before.keys()
    now = {path: data for path, data in lying(world.root).items() if path not in left}
    changed = {path for path in now | world.before if now.get(path) != world.before.get(path)}
    restore(world)
    # To look into a folder that is to be removed takes a handle: what stays is hidden.
    assert not changed and (not left or "handle" in fault)
    if fault in ("one handle", "disk full at a rename") and ended in (0, None):
        return
    assert ended not in (0, None)
    assert said.startswith("madan: ") and said.strip().count("\n") == 0, said


def test_a_full_disk_while_weights_are_written_is_an_error_of_the_system(tmp_path):
    path = tmp_path / "weights.safetensors"
    with full(None, 100), pytest.raises(OSError) as caught:
        checkpoints.write(path, {"a": torch.zeros(999)}, {})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))


def test_weights_that_cannot_be_opened_are_not_called_damaged(tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoints.write(path, {"F.weight": torch.zeros(2, 2)}, {})
    for spare in range(4):  # Each library opens the file in its turn.
        with no_handles(None, spare):
            try:
                checkpoints.load(path, "F", torch.nn.Linear(2, 2, bias=False))
                break
            except OSError as error:
                assert error.errno == errno.EMFILE
    assert spare > 1


def test_a_file_to_import_that_cannot_be_opened_is_not_called_missing(tmp_path):
    path = tmp_path / "judge.pth"
    torch.save({"weight": torch.zeros(2, 2)}, path)
    with no_handles(None, 0), pytest.raises(OSError) as caught:
        tensors.read(path)
    assert caught.value.errno == errno.EMFILE


def test_half_a_text_is_removed_and_the_text_before_stays(tmp_path):
    path = tmp_path / "page.md"
    files.write_whole(path, "before")
    with full(None, 10), pytest.raises(OSError) as caught:
        files.write_whole(path, "x" * 99)
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["page.md"] and path.read_text() == "before"


def test_a_folder_whose_successor_cannot_be_renamed_is_put_back(tmp_path, monkeypatch):
    folder, fresh = tmp_path / "made", tmp_path / ".made.new"
    for place in (folder, fresh):
        place.mkdir()
        (place / "file").write_text(place.name)
    rename = Path.rename

    def refused(self, target):
        if self == fresh:
            raise system(errno.ENOSPC)(str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError):
        files.replace_folder(fresh, folder)
    assert (folder / "file").read_text() == "made"


def test_half_a_line_of_the_list_of_written_files_is_removed(tmp_path):
    """Else the next line would be a part of it, and its file would be taken for the user's."""
    written = outputs.Outputs(tmp_path, "predict")
    written.write("a", b"1")
    size = outputs.list_of(tmp_path, "predict").stat().st_size
    with full(None, size + 20), pytest.raises(OSError):
        written.write("b", b"2")
    outputs.Outputs(tmp_path, "predict").write("b", b"3")
    assert outputs.listed(tmp_path, ["predict"]).keys() == {"a", "b"}
    outputs.Outputs(tmp_path, "predict").require(["a", "b"])
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".madan-") and
                not name.endswith(".sha256")]  # fmt: skip


def test_memory_that_a_decoder_lacks_is_no_damage_of_the_file(tmp_path):
    with pytest.raises(MemoryError), rasters.decoding(tmp_path / "a.png"):
        raise cv2.error("(-4:Insufficient memory) Failed to allocate 12345 bytes in function")
    with pytest.raises(folders.NotNow), rasters.decoding(tmp_path / "a.png"):
        raise system(errno.EMFILE)("plugin.py")


@pytest.mark.parametrize("act", [lambda: torch.zeros(10**13), lambda: np.zeros(10**14)])
def test_memory_that_is_lacking_is_one_sentence(act):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        act()
    text = shortages.sentence(caught.value)
    assert text.startswith("this command needs more memory than there is") and "\n" not in text


def test_other_errors_are_not_called_shortages():
    for error in (RuntimeError("size mismatch"), ValueError("x"), KeyboardInterrupt()):
        assert shortages.sentence(error) is None


def test_a_killed_drawing_job_leaves_nothing_that_its_successor_does_not_remove(
    tmp_path, monkeypatch
):
    """Its folder is DVC's: what lies there is versioned and copied to others."""
    monkeypatch.chdir(tmp_path)
    graph = Graph(config.resolve(tiny(params_yaml())))
    place = tmp_path / "data/miniature"
    job = Job(graph, parse("miniature/gta5"))

    def write() -> None:
        with job.publish() as out:
            writer.write("gta5", out, images={"train": 1}, size=(32, 64), seed=0)

    save = writer._save

    def at_once(layout, form, root, *more):
        save(layout, form, root, *more)
        shutil.copytree(place, tmp_path / "as killed")

    monkeypatch.setattr(writer, "_save", at_once)
    write()
    monkeypatch.setattr(writer, "_save", save)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "as killed", place)
    write()
    assert [path.name for path in place.iterdir() if path.suffix != ".lock"] == ["gta5"]

"""Photos of one's own: which files are meant, and what their results are called."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from madan import outputs
from madan.errors import Refusal
from madan.inert import inert

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
UNREAD = (".arw", ".avif", ".cr2", ".cr3", ".dng", ".gif", ".heic", ".heif", ".nef", ".raw")
LONGEST = 255 - len(".jpg")  # bytes of a file's name without the suffix that results have


class Photos(NamedTuple):
    """Files by the name that their results have, and what is said of those that are left out."""

    files: dict[str, Path]
    notes: Sequence[str]
    unread: dict[str, str]  # reasons, by folder


class Found(NamedTuple):
    """A file and the folder that was named, or the folder that the named file lies in."""

    root: Path
    file: Path


def find(paths: Iterable[Path], command: str) -> Photos:
    """Find images and videos that are named, or that lie in named folders and below.

    Left out: hidden files in folders, what the command itself wrote at an earlier call, and what
    other commands wrote below a named folder. Refusal where nothing is left.
    """
    found: dict[Path, Found] = {}
    left_out: Counter[str] = Counter()
    unread: dict[str, str] = {}
    for path in paths:
        if not path.exists():
            raise Refusal(f"{inert(str(path))} is not there: name an image, or a folder of images.")
        for file in _below(path, unread, left_out) if path.is_dir() else [path]:
            root = path if path.is_dir() else path.parent
            if _written(file, root if path.is_dir() else None, command):
                left_out["written by madan at an earlier call"] += 1
            else:
                found.setdefault(Path(os.path.realpath(file)), Found(root, file))
    if not found:
        raise Refusal(
            f"{', '.join(inert(str(path)) for path in paths)} holds no images"
            + "".join(f"; left out: {n} {why}" for why, n in left_out.items())
            + f". Images end in {', '.join(IMAGES)}, videos in {', '.join(VIDEOS)}."
        )
    notes = [f"left out: {count} {why}" for why, count in left_out.items()]
    return Photos(named(list(found.values())), notes, unread)


def is_video(path: Path) -> bool:
    """Tell by its suffix whether a file is a video."""
    return path.suffix.lower() in VIDEOS


def named(found: Sequence[Found]) -> dict[str, Path]:
    """Give each file a name of its own: its path in its folder, with as much more as it needs.

    Without its suffix where that is enough; else with it, with the folder, with a digest. No part
    has more than LONGEST bytes. Upper and lower case do not make two names.
    """
    names: dict[str, Path] = {}
    taken: set[str] = set()
    left = list(found)
    for form in FORMS:
        called = [(_short(form(each)), each) for each in left]
        counts = Counter(name.casefold() for name, _ in called)
        left = []
        for name, each in called:
            if counts[name.casefold()] == 1 and name.casefold() not in taken:
                names[name] = each.file
                taken.add(name.casefold())
            else:
                left.append(each)
    if left:
        raise Refusal(f"{inert(str(left[0].file))} has the name of another photo: rename it.")
    order = {each.file: k for k, each in enumerate(found)}
    return dict(sorted(names.items(), key=lambda item: order[item[1]]))


def _stem(each: Found) -> str:
    return _whole(each).removesuffix(each.file.suffix)


def _whole(each: Found) -> str:
    return each.file.relative_to(each.root).as_posix()


def _with_folder(each: Found) -> str:
    return f"{Path(os.path.abspath(each.root)).name or 'root'}/{_whole(each)}"


def _with_digest(each: Found) -> str:
    path = os.fsencode(os.path.abspath(each.file))
    return f"{_stem(each)}-{hashlib.sha256(path).hexdigest()[:12]}"


FORMS: Sequence[Callable[[Found], str]] = (_stem, _whole, _with_folder, _with_digest)


def _short(name: str) -> str:
    """Return the name with its last part cut, and marked by a digest, where it is too long."""
    path = PurePosixPath(name)
    last = os.fsencode(path.name)
    if len(last) <= LONGEST:
        return name
    mark = hashlib.sha256(last).hexdigest()[:12].encode()
    cut = last[: LONGEST - len(mark) - 1].decode("utf-8", "ignore").encode() + b"-" + mark
    return path.with_name(os.fsdecode(cut)).as_posix()


def _below(folder: Path, unread: dict[str, str], left_out: Counter[str]) -> list[Path]:
    """List the images and videos in a folder and below, in order; note what cannot be read."""

    def failed(error: OSError) -> None:
        unread[str(error.filename)] = error.strerror or str(error)

    files = []
    for where, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in IMAGES or suffix in VIDEOS:
                files.append(Path(where, name))
            elif suffix in UNREAD:
                left_out[f"of a kind that is not read ({suffix})"] += 1
    return files


def _written(file: Path, named_folder: Path | None, command: str) -> bool:
    """Tell whether a command wrote this file, unless its folder was named to another command."""
    path = Path(os.path.abspath(file))
    for folder in path.parents:
        for other in outputs.COMMANDS:
            digests = _listed(folder, other).get(path.relative_to(folder).as_posix())
            if not digests:
                continue
            below = named_folder and Path(os.path.abspath(named_folder)) in folder.parents
            if (other == command or below) and outputs.sha256(path) in digests:
                return True
    return False


@functools.lru_cache(maxsize=4096)
def _listed(folder: Path, command: str) -> outputs.Listed:
    return outputs.listed(folder, [command])

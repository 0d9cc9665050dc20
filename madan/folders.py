"""Folders: the files below a folder that a pattern names, and what else lies beside them.

A pattern is a path with one {name} in it, such as photos/img_{name}.png. Text around {name} belongs
to the file's own name; {name} may hold folders, which come before that text.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from madan.errors import Refusal

# A link to a folder is followed below at most this many others. Folders that are full of links to
# each other would otherwise be walked for ever.
LINKS = 2
# What cameras and tools write, whether or not it can be read here.
PHOTOS = set(
    ".png .apng .jpg .jpeg .jpe .jfif .bmp .dib .tif .tiff .webp .gif .heic .heif .avif .jp2 .j2k "
    ".jxl .ppm .pgm .pnm .tga .exr .hdr .dng .cr2 .cr3 .nef .arw .orf .rw2 .raw .psd .pcx".split()
)


CLOSED = "a folder that cannot be opened"


class NotNow(Refusal):
    """A file or folder is there but cannot be read for the moment."""


class Pattern(NamedTuple):
    """A pattern in its parts: the folder, and what stands before and after {name} in a file's name.

    `after` is without the suffix, which may be written in any case. `top`: letters of the folder's
    path and its slash.
    """

    folder: Path
    before: str
    after: str
    suffix: str
    top: int


class Entry(NamedTuple):
    """Something that lies below a folder: path, bytes, and what it is if it is no ordinary file."""

    path: str
    size: int
    odd: str = ""


class Stray(NamedTuple):
    """A file that is not read, and why."""

    path: Path
    why: str
    odd: bool = False  # it is no ordinary file


def parse(root: Path, pattern: str) -> Pattern:
    """Take a pattern below `root` apart."""
    folder, _, around = pattern.rpartition("/")
    before, after = around.split("{name}")
    after, dot, suffix = after.rpartition(".")
    return Pattern(root / folder, before, after, dot + suffix, len(str(root / folder)) + 1)


def place(pattern: str, name: str) -> str:
    """Put a name into a pattern: folder/img_{name}.png and a/b make folder/a/img_b.png."""
    folder, slash, around = pattern.rpartition("/")
    inner, deeper, own = name.rpartition("/")
    return folder + slash + inner + deeper + around.replace("{name}", own)


def alike(one: str, other: str) -> bool:
    """Whether a file could be of both patterns."""
    a, b = parse(Path(), one), parse(Path(), other)
    ends = [each.after + each.suffix.lower() for each in (a, b)]
    return (
        a.folder == b.folder
        and (a.before.startswith(b.before) or b.before.startswith(a.before))
        and (ends[0].endswith(ends[1]) or ends[1].endswith(ends[0]))
    )


def composed(name: str) -> str:
    """Give a name in one Unicode form (NFC), whichever form the file system keeps it in."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def named(pattern: Pattern, path: str) -> str | None:
    """Read the name out of a path below the pattern's folder; None where it is not of the pattern.

    The suffix may be in another case, and the letters in another Unicode form.
    """
    if not pattern.before and not pattern.after and path.endswith(pattern.suffix):
        name = path[pattern.top : len(path) - len(pattern.suffix)]
        return None if not name or name.endswith("/") else name
    inner, deeper, own = path[pattern.top :].rpartition("/")
    stem = own[: len(own) - len(pattern.suffix)]
    if own[len(stem) :].lower() != pattern.suffix.lower():
        return None
    for form in (lambda text: text, composed):
        before, after, rest = form(pattern.before), form(pattern.after), form(stem)
        fits = rest.startswith(before) and rest.endswith(after)
        if fits and len(rest) > len(before) + len(after):
            return inner + deeper + rest[len(before) : len(rest) - len(after)]
    return None


def files(root: Path, pattern: str) -> Iterator[tuple[str, Entry]]:
    """Name and entry of every file of a pattern; a link that leads nowhere has 0 bytes.

    Refusal of a kind that verify knows, where a folder cannot be opened.
    """
    parts = parse(root, pattern)
    for entry in walk(parts.folder):
        if (name := named(parts, entry.path)) is not None:
            yield name, entry
        elif CLOSED in entry.odd:
            raise NotNow(f"{entry.path} is {entry.odd}; mend its permissions or its disk.")


def one_sided(root: Path, pattern: str, other: str) -> bool:
    """Whether there are files of a pattern and none of another one.

    Where the other pattern has a folder of its own, no file of any kind may be in that folder:
    files with an unexpected name are a fault and not an absence.
    """
    if not any(True for _ in files(root, pattern)):
        return False
    folder = parse(root, other).folder
    if parse(root, pattern).folder.is_relative_to(folder):
        return not any(True for _ in files(root, other))
    return not any(True for _ in walk(folder))


def existing(root: Path, pattern: str, name: str) -> Path:
    """Find the file of that name, whatever the case of its suffix and its Unicode form.

    The path that the pattern says, where there is none.
    """
    path = root / place(pattern, name)
    for suffix in (path.suffix, path.suffix.upper(), path.suffix.lower()):
        if os.path.lexists(path.with_suffix(suffix)):
            return path.with_suffix(suffix)
    wanted = composed(path.stem), path.suffix.lower()
    try:
        beside = sorted(os.listdir(path.parent))
    except OSError:
        return path
    for other in beside:
        stem, suffix = os.path.splitext(other)
        if (composed(stem), suffix.lower()) == wanted:
            return path.parent / other
    return path


def walk(
    folder: Path | str, above: frozenset[tuple[int, int]] = frozenset(), links: int = 0
) -> Iterator[Entry]:
    """Everything below a folder but hidden files; links are followed, but not in circles.

    What is no ordinary file is said: a dead link, a pipe, a device, a folder that cannot be opened.
    """
    try:
        about, entries = os.stat(folder), list(os.scandir(folder))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            yield Entry(str(folder), 0, f"{CLOSED} ({error.strerror})")
        return
    here = about.st_dev, about.st_ino
    if here in above:
        yield Entry(str(folder), 0, "a link back to a folder that it lies in")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            about = entry.stat()
        except OSError as error:
            dead = entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
            odd = "a link that leads nowhere" if dead else f"not to be read ({error.strerror})"
            yield Entry(entry.path, 0, odd)
            continue
        if stat.S_ISDIR(about.st_mode):
            deeper = links + entry.is_symlink()
            if deeper > LINKS:
                yield Entry(entry.path, 0, f"a link to a folder below {LINKS} other links")
            else:
                yield from walk(entry.path, above | {here}, deeper)
        else:
            odd = "" if stat.S_ISREG(about.st_mode) else kind(about.st_mode)
            yield Entry(entry.path, about.st_size, odd)


def kind(mode: int) -> str:
    """Say what a file is from its mode, where it is no ordinary file; else nothing."""
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    )
    return next((word for test, word in kinds if test(mode)), "")


def strays(root: Path, patterns: tuple[str, ...]) -> list[Stray]:
    """Photos and odd files beside those of the patterns, in order.

    Photos are those of another suffix; odd files are links, pipes, devices and folders that lead to
    no photo. Files of one pattern are no strays of another in the same folder.
    """
    parts = [parse(root, pattern) for pattern in patterns]
    found: dict[str, str] = {}
    odd: set[str] = set()
    for each in parts:
        taken: dict[tuple[Pattern, str], str] = {}
        # Of two files of one name the one is read whose suffix is as the pattern has it.
        for entry in sorted(walk(each.folder), key=lambda e: (not e.path.endswith(each.suffix), e)):
            ending = os.path.splitext(entry.path)[1]
            of = next(((p, n) for p in parts if (n := _named(p, entry.path))), None)
            if of:
                twin = taken.setdefault((of[0], composed(of[1])), entry.path)
                if twin != entry.path:
                    found[entry.path] = f"has the name of {os.path.basename(twin)}"
            elif entry.odd:
                found[entry.path] = f"is {entry.odd}"
                odd.add(entry.path)
            elif ending.lower() in PHOTOS and ending.lower() != each.suffix.lower():
                found[entry.path] = f"its suffix is not {each.suffix}"
    return [Stray(Path(path), found[path], path in odd) for path in sorted(found)]


def _named(pattern: Pattern, path: str) -> str | None:
    inside = path.startswith(f"{pattern.folder}{os.sep}")
    return named(pattern, path) if inside else None

"""Files that commands write where the user says: nothing of the user's is replaced.

A command keeps the list `.madan-<command>.sha256` in the folder that it was given: lines as
sha256sum writes them, of every file that it wrote. A file is replaced only if a list names it with
the content that it has now. The same lists tell a later command which files are no photos.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from madan.errors import Refusal
from madan.inert import inert
from madan.shortages import naming

COMMANDS = ("import", "predict", "publish", "stylise")
Listed = dict[str, set[str]]  # digests by file name, relative to the folder of the list


def list_of(folder: Path, command: str) -> Path:
    """Return where a command lists what it wrote in a folder."""
    return folder / f".madan-{command}.sha256"


def listed(folder: Path, commands: Iterable[str] = COMMANDS) -> Listed:
    """Read which files commands wrote in a folder, with the SHA-256 of each content they had."""
    found: Listed = {}
    for command in commands:
        try:
            text = list_of(folder, command).read_text("utf-8", "surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name, digest in parsed(text):
            found.setdefault(name, set()).add(digest)
    return found


def line(name: str, digest: str) -> str:
    """Return the line of a file as sha256sum writes it, with its escapes."""
    plain = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if plain == name else chr(92)}{digest}  {plain}\n"


def parsed(text: str) -> Iterable[tuple[str, str]]:
    """Yield (name, digest) of lines as sha256sum writes them; lines of another form are skipped."""
    for each in text.split("\n"):
        escaped = each.startswith("\\")
        digest, gap, name = each.removeprefix("\\").partition("  ")
        if gap and name and len(digest) == 64:
            yield (_unescaped(name) if escaped else name), digest


class Outputs:
    """What a command writes in one folder; made without touching the disk.

    Without `keep` there is no list of it: for folders that are madan's own.
    """

    def __init__(self, folder: Path, command: str, keep: bool = True):
        self.folder, self.command, self.keep = folder, command, keep
        self._listed = listed(folder)

    def require(self, names: Iterable[str], to_come: Mapping[str, str] | None = None) -> None:
        """Refuse names at which something lies that madan did not write, or that was changed.

        A file that has the very content `to_come` (SHA-256 by name) already is not refused.
        """
        for name in names:
            path = self.folder / name
            for parent in list(path.parents)[: name.count("/") + 1]:
                if os.path.lexists(parent) and not parent.is_dir():
                    raise Refusal(f"{_shown(parent)} is no folder: name another place to write to.")
            if os.path.lexists(path) and not self._own(name, path, (to_come or {}).get(name)):
                raise Refusal(
                    f"{_shown(path)} was not written by madan, or was changed since: it is left "
                    "as it is. Move it, or name another place to write to."
                )

    def write(self, name: str, content: bytes) -> Path:
        """Write a file whole, or Refusal as `require` has it."""
        return self.make(name, lambda path: path.write_bytes(content))

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """Have `write` fill a temporary file of the same suffix, which then takes its place."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of a fixed length, so that any name that is allowed can be written.
        number, fresh = tempfile.mkstemp(path.suffix[:16], ".madan-", path.parent)
        os.close(number)
        try:
            with naming(path):
                write(Path(fresh))
            os.chmod(fresh, 0o666 & ~_umask())
            digest = sha256(Path(fresh))
            self.require([name], {name: digest})
            # Listed first: a file that is there is known, whenever the command is killed.
            self._note(name, digest)
            os.replace(fresh, path)
        finally:
            if os.path.lexists(fresh):
                os.unlink(fresh)
        return path

    def _own(self, name: str, path: Path, to_come: str | None) -> bool:
        known = self._listed.get(name, set()) | ({to_come} if to_come else set())
        return bool(known) and path.is_file() and not path.is_symlink() and sha256(path) in known

    def _note(self, name: str, digest: str) -> None:
        if not self.keep or digest in self._listed.setdefault(name, set()):
            return
        place = list_of(self.folder, self.command)
        before = place.stat().st_size if place.exists() else 0
        try:
            with naming(place), place.open("ab") as file:
                file.write(line(name, digest).encode("utf-8", "surrogateescape"))
        except OSError:  # Of half a line, the next one would become a part.
            with contextlib.suppress(OSError):
                os.truncate(place, before)
            raise
        self._listed[name].add(digest)


def require_own(folder: Path, known: Iterable[str]) -> None:
    """Refuse to replace a folder of madan's that holds other files than it wrote.

    It wrote what SHA256SUMS there names, and files of the names `known`.
    """
    sums = folder / "SHA256SUMS"
    told = sums.read_text("utf-8", "surrogateescape") if sums.is_file() else ""
    own = {*known, sums.name, *(name for name, _ in parsed(told))}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in own:
            raise Refusal(
                f"{_shown(path)} was not written by madan, and {_shown(folder)} is to be replaced: "
                "move that file to another place."
            )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unescaped(name: str) -> str:
    parts = name.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _shown(path: Path) -> str:
    return inert(str(path))

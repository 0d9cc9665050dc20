"""Certificates: the one line by which a finished artefact says what it is and how it was made.

`content` digests its files, `settings` what params.yaml said and `code` the package's modules that
made it, both chained over everything upstream; `inputs` digests the content it was made from and
`data` the datasets behind it. A certificate lies in its artefact as the file `digest`.
"""

import ast
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from madan.config import digest
from madan.schema import Refusal

KEYS = ("content", "settings", "code", "inputs", "data")
# These decide what runs and where it lies, and show how it goes; what they decide is in `settings`.
UNCERTIFIED = {
    "__init__",
    "keys",
    "network_settings",
    "method_settings",
    "schema",
    "runs",
    "method_checks",
    "checks",
    "config",
    "certificates",
    "graph",
    "guard",
    "progress",
    "assembly",
    "cli",
}


def read(path: Path) -> dict[str, str]:
    """The certificate of a finished artefact; Refusal when it is missing or damaged."""
    try:
        said = json.loads(path.read_text())
        return {key: said[key] for key in KEYS}
    except FileNotFoundError:
        raise Refusal(f"{path} not found: make it with snakemake {path}") from None
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"{path} is damaged: delete it and run snakemake again.") from None


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`, whatever stood there."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def alone(lock: Path, folder: Path) -> Iterator[None]:
    """Hold the kernel's lock on a file while a folder is made; Refusal if another holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refusal(
                f"{folder} is being made by another process, which holds {lock}; wait for it or "
                "stop it."
            ) from None
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def digest_files(files: Iterable[Path], folder: Path) -> str:
    """Digest of names (relative to a folder) and bytes of files, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)} {content}".encode())
    return total.hexdigest()[:16]


def verify(folder: Path, memory: Path) -> None:
    """Refusal when the files of an artefact are not those that its certificate was written for.

    What was found right is remembered in the file `memory`, with each file's size, times and
    inode; files of which these are the same are not read again.
    """
    content = read(folder / "digest")["content"]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files.remove(folder / "digest")
    memory.parent.mkdir(parents=True, exist_ok=True)
    # One job reads, others that want the same files wait for what it finds.
    with memory.with_name(f"{memory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        looks = json.dumps([content, [_looks(path) for path in files]])
        if memory.exists() and memory.read_text() == looks:
            return
        if digest_files(files, folder) != content:
            raise Refusal(
                f"{folder} is damaged: its files are not those for which its certificate, "
                f"{folder}/digest, was written; delete {folder} and run again."
            )
        write_whole(memory, looks)


def content(path: Path, memory: Path) -> str | None:
    """SHA-256 of a file, None where there is none; read anew only when the file looks changed."""

    def read() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return remembered(memory, [path.absolute()], read) if path.is_file() else None


def remembered(memory: Path, files: Iterable[Path], find: Callable[[], str]) -> str:
    """What `find` found in files, found anew only when one of them, or Python, looks changed."""
    looks = [platform.python_version(), *map(_looks, files)]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(memory.read_text())
        if said["looks"] == looks:
            return str(said["found"])
    found = find()
    with contextlib.suppress(OSError):  # Whoever may only read finds it anew each time.
        write_whole(memory, json.dumps({"looks": looks, "found": found}))
    return found


def _looks(path: Path) -> list[Any]:
    """What changes when somebody writes to a file or puts another in its place."""
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def settle(folder: Path) -> None:
    """See a folder that has its name, and what is in it, on the disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@functools.cache
def code_digest(package: Path, *modules: str) -> str:
    """Digest of the syntax, without docstrings and comments, of modules and all they import."""
    return digest([_syntax(package / f"{name}.py") for name in sorted(_closure(package, modules))])


def module_digests(package: Path, *modules: str) -> dict[str, str]:
    """Of modules and all they import, by name: the digest of each one's syntax alone."""
    names = sorted(_closure(package, modules))
    return {name: digest(_syntax(package / f"{name}.py")) for name in names}


def _closure(package: Path, modules: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in UNCERTIFIED:
            found.add(name)
            waiting += _imports(package / f"{name}.py")
    return found


@functools.cache
def _imports(path: Path) -> list[str]:
    """Names of the package's modules that a module imports."""
    names = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "madan":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("madan."):
            names.append((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names += [a.name.split(".")[1] for a in node.names if a.name.startswith("madan.")]
    return [name for name in names if (path.parent / f"{name}.py").exists()]


@functools.cache
def _syntax(path: Path) -> str:
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                node.body = body[1:]
    return ast.dump(tree)


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise Refusal(f"{path} line {error.lineno} is not valid Python: {error.msg}.") from None

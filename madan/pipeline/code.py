"""The code digest of a job: the syntax of its module and of all modules that this one imports.

Comments, docstrings and the version of Python do not count. `LEFT_OUT` names the modules that do
not count either, each with the reason why it decides no result.
"""

import ast
import functools
import hashlib
import json
import platform
from pathlib import Path

from madan.files import remembered
from madan.schema import Refusal

LEFT_OUT = {
    "schema": "what it makes of params.yaml is in the settings of every artefact",
    "config": "what it makes of params.yaml is in the settings of every artefact",
    "checks": "it only refuses params.yaml",
    "runs": "the runs that it finds are in the settings and among the inputs",
    "files": "it moves and locks whole files and folders; digests compare their bytes",
    "progress": "it only prints",
    "pipeline.artefacts": "every certificate holds its own address and those of its inputs",
    "pipeline.edges": "every certificate holds its inputs by role and name",
    "pipeline.settings": "every certificate holds the settings themselves",
    "pipeline.code": "it only computes this digest",
    "pipeline.certificates": "it only reads and writes certificates",
    "pipeline.graph": "it only puts the answers of the modules above together",
    "pipeline.staleness": "it only compares certificates",
    "pipeline.publishing": "it moves whole folders and writes certificates",
}
MEMORY = Path("state/code")


def code(package: Path, root: str) -> dict[str, str]:
    """Return the digest of every module behind a root module, by its name below the package.

    Files are only read again if one of the package looks changed.
    """
    memory, files = MEMORY / platform.node() / root, sorted(package.rglob("*.py"))
    return dict(json.loads(remembered(memory, files, lambda: json.dumps(modules(package, root)))))


def modules(package: Path, root: str) -> dict[str, str]:
    """Compute the digest of every module behind a root module, by its name below the package."""
    return {name: _digest(_file(package, name)) for name in sorted(_closure(package, root))}


def _closure(package: Path, root: str) -> set[str]:
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in LEFT_OUT:
            found.add(name)
            waiting += _imports(package, name)
    return found


def _imports(package: Path, name: str) -> list[str]:
    """The package's modules that a module imports, by their names below the package."""
    found: list[str] = []
    for node in ast.walk(_tree(_file(package, name))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    below = [each.removeprefix("madan.") for each in found if each.startswith("madan.")]
    return [each for each in below if _is_module(package, each)]


def _is_module(package: Path, name: str) -> bool:
    return _file(package, name).is_file()


def _file(package: Path, name: str) -> Path:
    path = package.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _digest(path: Path) -> str:
    return hashlib.sha256(_syntax(_tree(path)).encode()).hexdigest()[:16]


def _syntax(node: object) -> str:
    """A text of a syntax tree without docstrings and empty fields, whose set Python changes."""
    if isinstance(node, list):
        return f"[{','.join(map(_syntax, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    named = {field: value for field, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        named["body"] = _without_docstring(node.body)
    if isinstance(node, ast.Constant):
        named["value"] = node.value
    return f"{type(node).__name__}({','.join(f'{k}={_syntax(v)}' for k, v in named.items())})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    documented = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return body[1:] if documented else body


def _tree(path: Path) -> ast.Module:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, changed: int) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise Refusal(f"{path} line {error.lineno} is not valid Python: {error.msg}.") from None

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

from madan.errors import Refusal
from madan.files import remembered

LEFT_OUT = {
    "config": "what it makes of params.yaml is in the settings of every artefact",
    "errors": "it only holds refusals",
    "files": "it moves and locks whole files and folders; digests compare their bytes",
    "engine.progress": "it only prints",
    "outputs": "it only refuses to replace files that madan did not write",
    "inert": "it only shows names",
    "shortages": "it only describes errors of the machine",
    "pipeline.artefacts": "every certificate holds its own address and those of its inputs",
    "pipeline.edges": "every certificate holds its inputs by role and name",
    "pipeline.settings": "every certificate holds the settings themselves",
    "pipeline.code": "it only computes this digest",
    "pipeline.certificates": "it only reads and writes certificates",
    "pipeline.checks": "it only refuses addresses",
    "pipeline.contents": "it only compares files with certificates",
    "pipeline.raw": "every certificate of raw data holds the digest that it computes",
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
    found, waiting = dict[str, str](), [root]
    while waiting:
        name = waiting.pop()
        if name not in found and not left_out(name):
            path = _file(package, name)
            found[name], imported = _module(path, path.read_bytes())
            waiting += [each for each in imported if _file(package, each).is_file()]
    return dict(sorted(found.items()))


def left_out(name: str) -> bool:
    """Return whether a module, or the package that it lies in, decides no result."""
    return name in LEFT_OUT or name.partition(".")[0] in LEFT_OUT


def _file(package: Path, name: str) -> Path:
    path = package.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.lru_cache(maxsize=4096)
def _module(path: Path, source: bytes) -> tuple[str, list[str]]:
    """The digest of a module's syntax and what it imports of the package, below the package."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise Refusal(f"{path} line {error.lineno} is not valid Python: {error.msg}.") from None
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    below = [each.removeprefix("madan.") for each in found if each.startswith("madan.")]
    return hashlib.sha256(_syntax(tree).encode()).hexdigest()[:16], below


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

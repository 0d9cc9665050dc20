"""Write docs/settings.md, the settings reference, from the schema and params.yaml: make settings"""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from madan import config  # noqa: E402
from madan.config import schema  # noqa: E402

SETTINGS = PROJECT / "docs/settings.md"
INTRODUCTION = """# Settings reference

This page lists every key of [params.yaml](../params.yaml). `make settings` writes it from the
schema, so do not edit it by hand. `<name>` stands for a name that you choose. *Default* is the
value of a key that params.yaml does not have; *required* means that the key must be there. The
last columns are the values of params.yaml at each scale; keys of entries that you name, such as
runs and datasets, have no single value. Where the paper gives a number, `scale: paper` uses it;
otherwise `scale: paper` uses the number of the released code, except for the values that
[deviations](deviations.md) lists. The numbers of the miniature are ours.
"""


def _words(kind: Any) -> str:
    """Return the type of a key as a reader of YAML would say it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return ", ".join("`" + str(value) + "`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(each) for each in arguments))
    if origin in (list, tuple):
        inner = [each for each in arguments if each is not Ellipsis]
        several = {"number": "numbers", "whole number": "whole numbers", "section": "sections"}
        words = [several.get(each, each) for each in dict.fromkeys(map(_words, inner))]
        count = f"{len(inner)} " if origin is tuple else ""
        return f"list of {count}{' and '.join(words)}"
    if origin is dict:
        return f"mapping from {_words(arguments[0])} to {_words(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    return {**names, type(None): "`null`", Any: "anything"}.get(kind, str(kind))


def _bounds(field: FieldInfo) -> str:
    """Return the limits of a number, as in `>= 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [(sign, getattr(each, name, None)) for each in field.metadata
              for name, sign in signs.items()]  # fmt: skip
    return ", ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections that a type holds, through unions, lists and mappings."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for each in get_args(kind):
        yield from _models(each)


def _value(raw: Any, path: list[str]) -> str:
    """Return the value of params.yaml at a path, in YAML's words; a dash if there is none."""
    for part in path:
        if part == "<name>" or not isinstance(raw, dict) or part not in raw:
            return "–"
        raw = raw[part]
    return _yaml(raw)


def _yaml(value: Any) -> str:
    """Return a plain value on one line as YAML writes it; longer ones as a dash."""
    if isinstance(value, dict) and value:
        return "–"
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`"
    text = str(list(value)) if isinstance(value, (list, tuple)) else str(value)
    text = {"": '""', "{}": "{}"}.get(text, text.replace("'", ""))
    return f"`{text}`" if len(text) <= 40 else "–"


def _rows(
    model: type[BaseModel], path: list[str], scales: list[dict[str, Any]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the line of each key below a section, with the top section that it belongs to."""
    for name, field in model.model_fields.items():
        here, kind = [*path, name], field.annotation
        default = (
            "required"
            if field.is_required()
            else _yaml(field.get_default(call_default_factory=False))
        )
        inner = list(_models(kind))
        about = field.description or (inner[0].__doc__ if inner else "") or ""
        words = ", ".join(filter(None, [_words(kind), _bounds(field)]))
        cells = [f"`{'.'.join(here)}`", words, default]
        cells += [_value(raw, here) for raw in scales]
        yield here[0], [*cells, " ".join(about.split()).replace("|", "\\|")]
        named = get_origin(kind) is dict or get_origin(kind) is list
        for each in inner:
            yield from _rows(each, [*here, "<name>"] if named else here, scales)


def written() -> str:
    """Return the page: a table for each top section of params.yaml."""
    raw = YAML(typ="safe").load(PROJECT / "params.yaml")
    scales = [
        config.resolve(raw | {"scale": scale}).model_dump(mode="json") for scale in raw["scales"]
    ]
    lines, section = [INTRODUCTION], ""
    for top, cells in _rows(schema.Params, [], scales):
        if top != section:
            section = top
            lines += ["", f"## `{top}`", ""]
            lines += [f"| key | type | default | {' | '.join(raw['scales'])} | meaning |"]
            lines += ["|---|---|---|" + "---|" * (len(raw["scales"]) + 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = written()
    if "--check" in sys.argv:
        if not SETTINGS.exists() or SETTINGS.read_text(encoding="utf-8") != text:
            sys.exit("docs/settings.md differs from the schema or params.yaml; run: make settings")
    else:
        SETTINGS.write_text(text, encoding="utf-8")

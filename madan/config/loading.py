"""params.yaml, read and cross-checked: what is wrong with it is said here, before any work."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from madan.config.schema import Params
from madan.config.validation import CHECKS
from madan.errors import Refusal, allowed

RUNS = ("segmenters", "translators", "adaptations")


def load(path: Path = Path("params.yaml"), scale: str | None = None) -> Params:
    """Read, type and cross-check params.yaml at its scale, or another; Refusal if it is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Refusal(f"{path} not found: run in the project's folder, where it lies.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} cannot be read as text: {error}.") from None
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise Refusal(f"{path}{where} is not valid YAML: {reason}.") from None
    if not isinstance(raw, dict):
        raise Refusal(f"{path} must be a mapping with the keys {', '.join(Params.model_fields)}.")
    return resolve(raw | ({"scale": scale} if scale else {}), str(path))


def resolve(raw: Mapping[str, Any], origin: str = "params.yaml") -> Params:
    """Settings from the mapping in params.yaml, typed and cross-checked, or Refusal."""
    if raw.get("scale") == "paper" and isinstance(raw.get("paper"), Mapping):
        raw = _merge({key: raw[key] for key in raw if key != "paper"}, raw["paper"])
        raw = {
            **raw,
            **{key: _present(raw[key]) for key in ("domains", *RUNS, "released") if key in raw},
        }
    try:
        params = _of_its_scale(Params.model_validate(raw))
    except ValidationError as error:
        raise Refusal(" ".join(f"{origin}: {_sentence(error)}".split())) from None
    try:
        for check in CHECKS:
            check(params)
    except Refusal as refusal:
        raise Refusal(" ".join(f"{origin}: {refusal}".split())) from None
    return params


def digest(value: Any) -> str:
    """Hex digest of plain data, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _merge(base: Any, other: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(other, Mapping)):
        return other
    merged = dict(base)
    for key, value in other.items():
        merged[key] = _merge(base[key], value) if key in base else value
    return merged


def _present(entries: Any) -> Any:
    """A section of named entries without those that are null."""
    if not isinstance(entries, Mapping):
        return entries
    return {name: entry for name, entry in entries.items() if entry is not None}


def _of_its_scale(params: Params) -> Params:
    """Settings whose tables have the rows of this scale alone."""
    tables = {}
    for name, table in params.tables.items():
        rows = [row for row in table.rows if row.scale in (None, params.scale)]
        tables[name] = table.model_copy(update={"rows": rows})
    return params.model_copy(update={"tables": tables})


def _sentence(error: ValidationError) -> str:
    """The first problem as a sentence: the key, what stood there, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        model: Any = Params
        for part in first["loc"][:-1]:
            model = _inner(model, part)
        fields = [name for name in model.model_fields if name != "paper"] if model else []
        return f"unknown key {key}; {allowed(str(first['loc'][-1]), fields)}."
    if first["type"] == "missing":
        return f"{key} is missing."
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{key} is {first['input']!r}; {message}."


def _inner(model: Any, part: str | int) -> Any:
    """The model behind one step of an error's path, through dicts, lists and optionals."""
    annotation = model
    if isinstance(model, type) and issubclass(model, BaseModel):
        annotation = model.model_fields[str(part)].annotation
        if getattr(annotation, "__origin__", None) in (dict, list):
            return annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)

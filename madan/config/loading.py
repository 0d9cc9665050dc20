"""params.yaml, read and cross-checked: what is wrong with it is said here, before any work."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from madan.config.scales import at_scale
from madan.config.schema import Params
from madan.config.sentences import sentence
from madan.config.validation import CHECKS
from madan.errors import Refusal, known


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
    try:
        found, lineage = at_scale(raw)
        params = _of_its_scale(Params.model_validate(found), lineage)
    except ValidationError as error:
        raise Refusal(" ".join(f"{origin}: {sentence(error, Params)}".split())) from None
    except Refusal as refusal:
        raise Refusal(" ".join(f"{origin}: {refusal}".split())) from None
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


def _of_its_scale(params: Params, lineage: Sequence[str]) -> Params:
    """Settings whose tables have the rows of this scale, or of one that it stands on."""
    tables = {}
    for name, table in params.tables.items():
        for row in table.rows:
            if row.scale is not None:
                known(f"tables.{name} row {row.row}: scale", row.scale, params.scales)
        rows = [row for row in table.rows if row.scale in (None, *lineage)]
        tables[name] = table.model_copy(update={"rows": rows})
    return params.model_copy(update={"tables": tables})

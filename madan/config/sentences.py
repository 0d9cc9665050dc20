"""Errors of types in params.yaml as sentences: the key, what stands there, what is allowed."""

from typing import Any

from pydantic import BaseModel, ValidationError

from madan.errors import allowed


def sentence(error: ValidationError, top: type[BaseModel], above: str = "") -> str:
    """Describe the first problem that a model found.

    `top` is the model that was validated, `above` the path of the key that it stands at.
    """
    first = error.errors()[0]
    key = ".".join([*([above] if above else []), *(str(p) for p in first["loc"] if p != "[key]")])
    if first["type"] == "extra_forbidden":
        model: Any = top
        for part in first["loc"][:-1]:
            model = _inner(model, part)
        return f"unknown key {key}; {allowed(str(first['loc'][-1]), list(_fields(model)))}."
    if first["type"] == "missing":
        return f"{key} is missing."
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{key} is {first['input']!r}; {message}."


def _fields(model: Any) -> Any:
    return model.model_fields if model else ()


def _inner(model: Any, part: str | int) -> Any:
    """The model behind one step of an error's path, through dicts, lists and optionals."""
    annotation = model
    if isinstance(model, type) and issubclass(model, BaseModel):
        annotation = model.model_fields[str(part)].annotation
        if getattr(annotation, "__origin__", None) in (dict, list):
            return annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)

"""Tensors in files that others wrote: read without running their code, found in any wrapper.

Training code leaves weights inside dictionaries, beside optimisers, settings and averages, under
prefixes of parallel, compiled and Lightning modules. `found` names every network that is in there.
"""

import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from madan import outputs, shortages
from madan.errors import Refusal
from madan.inert import inert
from madan.models.checkpoints import KEY, MARKS, put

DEEPEST = 8  # dictionaries inside of each other
SHOWN = 6  # parts of a file that a sentence names
# What a pickle of tensors needs. Anything else becomes a Blank, which does nothing.
_REBUILT = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
}


class Part(NamedTuple):
    """A dictionary of tensors in a file, and the keys that lead to it."""

    where: tuple[str, ...]
    tensors: dict[str, Tensor]


class Network(NamedTuple):
    """A part of a file whose keys below a prefix are those of a network."""

    part: Part
    kind: str
    prefix: str

    def named(self) -> str:
        """Say where it is and what it is, for people."""
        count = sum(key.startswith(self.prefix) for key in self.part.tensors)
        return f"{_where(self.part.where, self.prefix)} ({self.kind}, {count} tensors)"


def read(path: Path) -> Any:
    """Read what a .safetensors or .pth file holds: tensors in dictionaries, never other objects.

    Refusal where that cannot be read, or where reading it could run code of whoever wrote it.
    """
    content = _safetensors(path)
    return _unpickled(path) if content is None else content


def parts(content: Any) -> list[Part]:
    """List the dictionaries that hold tensors by name, those inside of others included."""
    found: list[Part] = []
    seen: set[int] = set()

    def walk(value: Any, where: tuple[str, ...]) -> None:
        if isinstance(value, Blank):
            value = value.tensors()
        if not isinstance(value, Mapping) or id(value) in seen or len(where) > DEEPEST:
            return
        seen.add(id(value))
        tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
        if tensors:
            found.append(Part(where, tensors))
        for key, item in value.items():
            walk(item, (*where, str(key)))

    walk(content, ())
    return found


def networks(found: list[Part], kinds: Mapping[str, str]) -> list[Network]:
    """Find the networks of these kinds in parts of a file, with the prefix of their keys.

    A network is known by its first and last weights, as `checkpoints.MARKS` has them.
    """
    return [
        Network(part, kind, prefix)
        for part in found
        for kind in kinds
        for prefix in _prefixes(part.tensors, *MARKS[kind])
    ]


def inside(content: Any, found: list[Part], known: list[Network]) -> str:
    """Say what is in a file: its networks, else its parts, else the keys of its dictionary."""
    if known:
        names = [network.named() for network in known]
    elif found:
        names = [f"{_where(part.where)} ({len(part.tensors)} tensors)" for part in found]
    elif isinstance(content, Mapping):
        names = [f"{_key(key)} ({type(value).__name__})" for key, value in content.items()]
    else:
        names = [f"a {type(content).__name__}"]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def not_plain(value: Tensor) -> str:
    """Say why a tensor is none whose values lie one after another in memory; else nothing."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"a {type(value).__name__}"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a sparse tensor, {value.layout}"
    if value.is_quantized:
        return "a quantised tensor"
    if value.device.type != "cpu":
        return f"a tensor on {value.device.type}, without values"
    if value.is_complex():
        return "a tensor of complex numbers"
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held:
        return f"a tensor of {value.numel()} values that are stored in {held} bytes"
    return ""


def extract(file: str, out: str, part: str = "") -> None:
    """Write the tensors in a .pth, or in a part of it, as safetensors; other objects are left out.

    Nothing of whoever wrote the file is run: their objects are replaced by blanks. `part` is a
    name as refusals of `madan import` have it, such as `ema.shadow`. Refusal where the file holds
    no such tensors, or where another file lies at `out`.
    """
    chosen = {}
    content = _blanked(Path(file))
    for each in parts(content):
        for key, value in each.tensors.items():
            name = ".".join((*each.where, key))
            if not part or name.startswith(f"{part}."):
                reason = not_plain(value)
                if reason:
                    raise Refusal(f"{file}: {_key(name)} is {reason}; only plain ones can be kept.")
                chosen[name.removeprefix(f"{part}.") if part else name] = value
    if not chosen:
        raise Refusal(f"{file} holds no tensors by name{f' in {part}' if part else ''}.")
    kept = {key: value.detach().contiguous().clone() for key, value in chosen.items()}
    place = Path(out)
    outputs.Outputs(place.parent, "import").make(place.name, lambda path: put(path, kept))


class Blank:
    """Stands for an object of unknown code; of a module it keeps the tensors."""

    dump_patches = False  # torch asks this of modules in files of before its version 1.6

    def __init__(self, *_: Any, **__: Any):
        self.state: Any = None
        self.items: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        """Keep the state as it is."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep what a dictionary would keep."""
        self.items[str(key)] = value

    def __call__(self, *_: Any, **__: Any) -> "Blank":
        """Do nothing."""
        return Blank()

    def append(self, _: Any) -> None:
        """Do nothing."""

    def extend(self, _: Any) -> None:
        """Do nothing."""

    def add(self, _: Any) -> None:
        """Do nothing."""

    def tensors(self, depth: int = 0) -> dict[str, Any]:
        """Of a module: its tensors by the keys of its state_dict; of other objects: their parts."""
        items = getattr(self, "items", {})
        state = getattr(self, "state", None)
        state = state if isinstance(state, Mapping) else {}
        if "_modules" not in state or depth > 100:
            return {**items, **{str(key): value for key, value in state.items()}}
        found: dict[str, Any] = {}
        for group in ("_parameters", "_buffers"):
            members = state.get(group)
            found |= {str(k): v for k, v in _items(members) if isinstance(v, Tensor)}
        for name, child in _items(state["_modules"]):
            if isinstance(child, Blank):
                found |= {f"{name}.{key}": value for key, value in child.tensors(depth + 1).items()}
        return found


# In Python, where a number in a damaged file does not decide how much memory is taken.
_SLOW: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_SLOW):
    """Unpickles tensors; every other class and function becomes a Blank."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _REBUILT else Blank


def _load(file: Any, **more: Any) -> Any:
    return _Unpickler(file, **more).load()


_BLANKS: Any = types.ModuleType("madan_blanks")
_BLANKS.Unpickler, _BLANKS.load = _Unpickler, _load


def _blanked(path: Path) -> Any:
    _require_file(path)
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file) and any(
                name.endswith("/constants.pkl") for name in zipfile.ZipFile(file).namelist()
            ):
                raise Refusal(f"{path} is TorchScript, a program: export its state_dict instead.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote names of the file
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_BLANKS)
    except Refusal:
        raise
    except Exception as error:  # whatever hostile or torn bytes lead to
        _raise_if_unopened(error)
        raise Refusal(f"{path} is damaged, or no file of weights ({_reason(error)}).") from None


def _safetensors(path: Path) -> dict[str, Tensor] | None:
    with path.open("rb"):  # Of what cannot be opened, the library says that it is not there.
        pass
    try:
        with shortages.of_libraries(path), safe_open(path, "pt") as file:
            if KEY in (file.metadata() or {}):
                raise Refusal(f"{path} was written by madan: it needs no import.")
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return None


def _unpickled(path: Path) -> Any:
    _require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote names of the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever hostile or torn bytes lead to
        _raise_if_unopened(error)
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if unsafe:
        place = path.with_name(f"{path.stem}-tensors.safetensors")
        raise Refusal(
            f"{path} holds more than tensors ({inert(unsafe[1], 80)}), and reading that could run "
            "code of whoever wrote it. Its tensors alone can be taken out without running "
            f"anything, and imported from the new file: {_command(path, place)}"
        )
    raise Refusal(f"{path} is damaged, or no file of weights: fetch it again.")


def command(path: Path, network: Network) -> str:
    """Say how one network of several in a file becomes a file of its own."""
    part = ".".join((*network.part.where, network.prefix)).strip(".")
    place = path.with_name(f"{path.stem}-{re.sub(r'[^A-Za-z0-9_]+', '-', part) or 'plain'}")
    return _command(path, place.with_name(f"{place.name}.safetensors"), part)


def _command(path: Path, out: Path, part: str = "") -> str:
    words = ", ".join(repr(str(word)) for word in (path, out, part) if str(word))
    return f'python -c "from madan.models.tensors import extract; extract({words})"'


def _raise_if_unopened(error: Exception) -> None:
    """Raise the error of a file that cannot be opened; errors that its bytes cause name no file."""
    if isinstance(error, OSError) and error.filename:
        raise error


def _require_file(path: Path) -> None:
    """Refusal where a zip archive would unpack to more bytes than the file has."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # a directory of entries that is damaged in whatever way
        raise Refusal(f"{path} is damaged, or no file of weights: fetch it again.") from None
    if size > path.stat().st_size:
        raise Refusal(
            f"{path} would unpack to {size} bytes: it is no file that torch wrote; fetch it again."
        )


def _prefixes(tensors: Mapping[str, Tensor], first: str, last: str) -> Iterator[str]:
    for key in tensors:
        prefix = key.removesuffix(first)
        ends = prefix != key and (not prefix or prefix.endswith("."))
        if ends and prefix + last in tensors:
            yield prefix


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _where(where: tuple[str, ...], prefix: str = "") -> str:
    return _key(".".join((*where, prefix)).strip(".")) or "the file itself"


def _key(key: Any) -> str:
    return inert(str(key)[:1000], 60)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {inert(str(error).splitlines()[0] if str(error) else '', 80)}"

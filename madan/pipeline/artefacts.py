"""The artefacts of the pipeline: how each one is called and where it lies.

An address is the same in params.yaml, commands, messages and folders: `segmenters/pooled`,
`translators/madan@100` (the generators of step 100), `stylised/madan/gta5`,
`prepared/gta5/train/0`, `scores/segmenters/pooled/cityscapes/test`.
"""

import contextlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from madan.config.schema import Params
from madan.errors import Refusal, known


@dataclass(frozen=True)
class Artefact:
    """Something that a job makes and certifies: a folder, or the files of a table."""

    kind: ClassVar[str]
    seed = 0

    @property
    def name(self) -> str:
        """The address without the kind."""
        return "/".join(str(getattr(self, f.name)) for f in fields(self) if f.name != "seed")

    @property
    def address(self) -> str:
        """The kind and the name, such as segmenters/pooled."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        """Return the address, and the seed of an artefact that has seeds."""
        return self.address

    @classmethod
    def root(cls, params: Params) -> Path:
        """Where all artefacts of the kind lie, relative to the project's folder."""
        return Path("results", params.scale, cls.kind)

    def folder(self, params: Params) -> Path:
        """Where the artefact lies."""
        return self.root(params) / self.name

    def certificate(self, params: Params) -> Path:
        """The file that says what the artefact is and how it was made."""
        return self.folder(params) / "certificate.json"

    def files(self, params: Params) -> list[Path]:
        """The files that the certificate counts, as far as they exist."""
        found = sorted(path for path in self.folder(params).rglob("*") if path.is_file())
        return [path for path in found if path != self.certificate(params)]


@dataclass(frozen=True)
class _Seeded(Artefact):
    """An artefact that exists once for every seed."""

    def __str__(self) -> str:
        return f"{self.address} seed {self.seed}"

    def folder(self, params: Params) -> Path:
        """Return where the artefact lies."""
        return super().folder(params) / f"seed{self.seed}"


@dataclass(frozen=True)
class Drawn(Artefact):
    """The raw images and labels of a domain of the miniature world."""

    domain: str
    kind: ClassVar[str] = "miniature"

    @classmethod
    def root(cls, params: Params) -> Path:
        """Return where all drawn domains lie, at any scale."""
        return Path("data/miniature")


@dataclass(frozen=True)
class Verified(Artefact):
    """The list of the usable pairs of a split."""

    domain: str
    split: str
    kind: ClassVar[str] = "verified"

    @classmethod
    def root(cls, params: Params) -> Path:
        """Return where all verified splits lie."""
        return Path("data/verified", params.scale)


@dataclass(frozen=True)
class Prepared(Artefact):
    """A shard of a split as arrays."""

    domain: str
    split: str
    shard: int
    kind: ClassVar[str] = "prepared"

    def folder(self, params: Params) -> Path:
        """Return where the artefact lies."""
        domain = params.dataset(self.domain)
        size, shard = "x".join(map(str, domain.size)), f"{self.shard}-of-{domain.shards}"
        return self.root(params) / self.domain / f"{self.split}-{size}" / shard

    @classmethod
    def root(cls, params: Params) -> Path:
        """Return where all prepared shards lie."""
        return Path("data/prepared", params.scale)


@dataclass(frozen=True)
class Imported(Artefact):
    """Weights that others published, as safetensors."""

    run: str
    kind: ClassVar[str] = "released"


@dataclass(frozen=True)
class Translator(_Seeded):
    """The generators and discriminators of a run of pixel-level adaptation."""

    run: str
    seed: int = 0
    kind: ClassVar[str] = "translators"


@dataclass(frozen=True)
class Segmenter(_Seeded):
    """The segmenter of a run of supervised training."""

    run: str
    seed: int = 0
    kind: ClassVar[str] = "segmenters"


@dataclass(frozen=True)
class Adaptation(_Seeded):
    """The segmenter of a run of feature-level alignment."""

    run: str
    seed: int = 0
    kind: ClassVar[str] = "adaptations"


@dataclass(frozen=True)
class _Translated(_Seeded):
    """What a translator makes of a source; `translator` may be RUN@STEP."""

    translator: str
    source: str
    seed: int = 0

    @property
    def run(self) -> str:
        """The translator without its step."""
        return self.translator.partition("@")[0]

    @property
    def step(self) -> int | None:
        """The step of the translator, None for its last."""
        _, at, step = self.translator.partition("@")
        return int(step) if at else None


@dataclass(frozen=True)
class Stylised(_Translated):
    """A source's prepared images in the style of the target."""

    kind: ClassVar[str] = "stylised"


@dataclass(frozen=True)
class Release(_Translated):
    """A source's raw images in the style of the target, in the source's own layout."""

    kind: ClassVar[str] = "releases"


@dataclass(frozen=True)
class _Predicted(_Seeded):
    """What the segmenter of a run predicts on a split of a domain."""

    run: str
    domain: str
    split: str
    seed: int = 0


@dataclass(frozen=True)
class Score(_Predicted):
    """The confusion matrix of a run on a split."""

    kind: ClassVar[str] = "scores"


@dataclass(frozen=True)
class Predictions(_Predicted):
    """The label images that a run predicts on a split."""

    kind: ClassVar[str] = "predictions"


@dataclass(frozen=True)
class Figure(Artefact):
    """A picture of params.yaml's `figures`."""

    figure: str
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Table(Artefact):
    """The files of a table of params.yaml's `tables`."""

    table: str
    kind: ClassVar[str] = "tables"

    @property
    def csv(self) -> Path:
        """The table itself."""
        shown = self.table == "miou"
        return Path("results/miou.csv") if shown else Path("results/tables", f"{self.table}.csv")

    @property
    def pages(self) -> dict[str, Path]:
        """All files of the table: miou has metrics, the others pages and differences."""
        if self.table == "miou":
            return {"csv": self.csv, "metrics": self.csv.with_name("metrics.json")}
        apart = self.csv.parent / "differences" / self.csv.name
        texts = {end: self.csv.with_suffix(f".{end}") for end in ("md", "tex")}
        return {"csv": self.csv, "differences": apart, **texts}

    def folder(self, params: Params) -> Path:
        """Return where the artefact lies."""
        return self.csv.parent

    def certificate(self, params: Params) -> Path:
        """Return the path of the certificate."""
        return self.csv.with_suffix(".certificate.json")

    def files(self, params: Params) -> list[Path]:
        """Return the files of the table that exist."""
        return [page for page in self.pages.values() if page.exists()]


Trained = Translator | Segmenter | Adaptation
TRAINED: dict[str, type[Trained]] = {
    each.kind: each for each in (Translator, Segmenter, Adaptation)
}
KINDS: dict[str, Any] = {
    each.kind: each
    for each in (
        Drawn, Verified, Prepared, Imported, Translator, Stylised, Segmenter, Adaptation,
        Score, Table, Figure, Release, Predictions,
    )
}  # fmt: skip


def on_disk(params: Params) -> list[Artefact]:
    """Return the artefacts that have a certificate, or files without one."""
    tables = [Table(name) for name in params.tables]
    found: list[Artefact] = [
        each for each in tables if each.certificate(params).exists() or each.files(params)
    ]
    for made in KINDS.values():
        if made is not Table:
            for folder in sorted(made.root(params).glob("*/" * _depth(made))):
                artefact = at(folder / "certificate.json", params)
                if artefact and artefact.folder(params) == folder and any(folder.iterdir()):
                    found.append(artefact)
    return found


def at(path: Path, params: Params) -> Artefact | None:
    """Return the artefact that a file belongs to by its place, None if there is none."""
    for table in map(Table, params.tables):
        if path in (table.certificate(params), *table.pages.values()):
            return table
    for made in KINDS.values():
        root, depth = made.root(params), _depth(made)
        if made is Table or not path.is_relative_to(root):
            continue
        parts = path.relative_to(root).parts[:depth]
        with contextlib.suppress(Refusal, ValueError, IndexError):
            seed = int(parts[-1].removeprefix("seed")) if issubclass(made, _Seeded) else 0
            name = "/".join(parts[:-1] if issubclass(made, _Seeded) else parts)
            if made is Prepared:  # Its folders hold the size and the number of shards, too.
                name = "/".join([parts[0], *(part.partition("-")[0] for part in parts[1:])])
            artefact = parse(f"{made.kind}/{name}", seed)
            if path.is_relative_to(artefact.folder(params)):
                return artefact
    return None


def _depth(made: Any) -> int:
    """How many folders deep an artefact of a kind lies below its root."""
    return len(fields(made)) + issubclass(made, _Predicted)


def parse(address: str, seed: int = 0) -> Artefact:
    """Return the artefact of an address such as segmenters/pooled; Refusal if it is none.

    An artefact without seeds takes no notice of `seed`. Whether params.yaml has it is another
    question (`checks.check`).
    """
    kind, _, rest = address.partition("/")
    known(f"the address {address}", kind, KINDS)
    made = KINDS[kind]
    names = [field.name for field in fields(made) if field.name != "seed"]
    parts = rest.split("/")
    if issubclass(made, _Predicted):
        parts = ["/".join(parts[:2]), *parts[2:]]
        names[0] = "kind/run"
    numeric = made is not Prepared or parts[-1].isdigit()
    if len(parts) != len(names) or not all(parts) or not numeric:
        form = "/".join([kind, *names]).upper().replace(kind.upper(), kind, 1)
        raise Refusal(f"{address} is not an address of its kind; write {form}.")
    values: list[Any] = [*parts[:-1], int(parts[-1])] if made is Prepared else [*parts]
    seeds = [seed] if len(names) < len(fields(made)) else []
    artefact: Artefact = made(*values, *seeds)
    return artefact

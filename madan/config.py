"""params.yaml as typed models: what is wrong with it is said here, before any work."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from madan import labels

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
Address = Annotated[
    str, Field(pattern=r"^(segmenters|translators|adaptations)/[a-z0-9][a-z0-9-]*$")
]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[tuple[Count, Count], Field(description="height, width in pixels")]
Precision = Literal["fp32", "bf16"]
Split = Literal["train", "val", "test"]
Byte = Annotated[int, Field(ge=0, le=255)]
ClassName = Annotated[str, Field(json_schema_extra={"enum": list(labels.CLASSES)})]


class Refusal(Exception):
    """What a person has to mend, as one sentence; commands end with it and exit code 1."""


class Model(BaseModel):
    """A section of params.yaml: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Miniature(Model):
    """The drawn world that stands in for the datasets at `scale: miniature`."""

    seed: int = Field(ge=0)
    size: Size
    images: dict[Name, dict[Literal["train", "val", "test"], Count]]


class Layout(Model):
    """How a dataset of one's own lies below its root, and which classes its labels hold."""

    images: str = Field(description="such as images/{split}/{name}.jpg")
    labels: str = Field(description="such as labels/{split}/{name}.png")
    folders: dict[str, str] = Field({}, description="what {split} stands for, if not its name")
    ids: Name | dict[ClassName, list[Byte]] | None = Field(
        None, description="ids of each class, or the release whose ids these are"
    )
    colours: dict[ClassName, list[tuple[Byte, Byte, Byte]]] | None = Field(
        None, description="colours of each class, where labels are colour images"
    )
    ignore: list[Byte | tuple[Byte, Byte, Byte]] = Field(
        [], description="ids or colours that are known and not counted"
    )


class Domain(Model):
    """A dataset (layout, root, size, shards) or the union of several treated as one."""

    layout: Name | None = Field(None, description="a release's, or one of `layouts`")
    root: str | None = Field(None, description="folder of the downloads, in their native layout")
    size: Size | None = Field(None, description="size that training reads")
    shards: Count = 1
    splits: Literal["given", "all"] | dict[Split, Fraction] = Field(
        "given", description="the release's, all for training, or shares to derive lists by"
    )
    exclude: dict[str, str] = Field({}, description="names of images to leave out, with reasons")
    known_damage: Literal["exclude", "keep"] = "exclude"
    union: Annotated[list[Name], Field(min_length=2)] | None = None


class Dataset(Model):
    """A domain that is a dataset of its own, with its layout if that is the user's."""

    layout: str
    own: Layout | None
    root: Path
    size: tuple[int, int]
    shards: int
    splits: Literal["given", "all"] | dict[str, float]
    exclude: dict[str, str]
    known_damage: str


class GeneratorNetwork(Model):
    """ResNet generator of CycleGAN; the paper's is 64, 9, 7, transposed, without the rest."""

    ngf: Count
    blocks: Count
    end_kernel: Literal[3, 5, 7]
    upsample: Literal["transposed", "nearest"]
    dropout: bool
    colour: bool = Field(description="add a learnable 3x3 colour matrix before the tanh")


class DiscriminatorNetwork(Model):
    """PatchGAN; the paper's is 64, 3, instance."""

    ndf: Count
    layers: Count
    norm: Literal["instance", "none"]


class SegmenterNetwork(Model):
    """FCN-8s; the paper's is VGG-16 with a head of 4096, 7x7 and padding 100."""

    widths: tuple[Count, Count, Count, Count, Count]
    convs: tuple[Count, Count, Count, Count, Count]
    pools: tuple[Literal[0, 1], Literal[0, 1], Literal[0, 1], Literal[0, 1], Literal[0, 1]]
    head: Count
    head_kernel: Literal[1, 3, 5, 7]
    norm: Literal["none", "group"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    padding: Literal[1, 100]


class FeatureDiscriminatorNetwork(Model):
    """ADDA's discriminator of 1x1 convolutions on scores or features."""

    hidden: tuple[Count, Count]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Networks(Model):
    """Sizes of the networks."""

    segmenter: SegmenterNetwork
    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork
    feature_discriminator: FeatureDiscriminatorNetwork


class ClassWeights(Model):
    """Weight of a class in the cross-entropy: min(cap, frequency ** -power)."""

    power: Weight
    cap: Positive


class SegmenterTraining(Model):
    """Supervised training of F."""

    lr: Positive
    steps: Count
    batch: Count = Field(description="images a step, shared evenly between the sets of train_on")
    crop: Size
    schedule: Literal["constant", "one-cycle"]
    weight_decay: Weight
    flip: bool
    jitter: Fraction = Field(description="brightness, contrast and saturation factors 1 +- jitter")
    class_weights: ClassWeights | None
    precision: Precision


class TranslatorWeights(Model):
    """Weights of the terms that the generators minimise."""

    gan_target: Weight
    gan_source: Weight
    cycle: Weight
    identity: Weight
    semantic: Weight
    sad: Weight
    ccd: Weight


class Gates(Model):
    """When SAD and CCD join, as a fraction of the run's steps."""

    sad: Fraction
    ccd: Fraction


class TranslatorTraining(Model):
    """Training of the generators against their discriminators."""

    lr: Positive
    lr_discriminator: Positive
    colour_lr: Positive = Field(description="the colour matrix's learning rate, in units of lr")
    task_lr: Positive = Field(description="learning rate of F_A inside the loop")
    beta1: Fraction
    decay_from: Fraction = Field(description="fraction of the steps after which lr falls to 0")
    steps: Count
    batch: Count = Field(description="images a step of each source, and of the target")
    crop: Size
    flip: bool
    pool: int = Field(ge=0, description="history of fakes a discriminator sees; 0 = none")
    weights: TranslatorWeights
    gates: Gates
    stylise_precision: Precision


class AdaptationTraining(Model):
    """Feature-level alignment (ADDA)."""

    lr: Positive
    lr_discriminator: Positive
    momentum: Fraction
    steps: Count
    batch: Count
    crop: Size
    flip: bool
    on: Literal["scores", "features"]
    weight: Weight = Field(description="lambda_G of the adversarial term; 0 is the control")
    gate: Fraction = Field(description="F learns only while the discriminator is righter than this")
    window: Count = Field(description="iterations over which that accuracy is averaged")


class Training(Model):
    """Schedules; `threads` belongs to the settings because sums depend on it."""

    segmenter: SegmenterTraining
    translator: TranslatorTraining
    adaptation: AdaptationTraining
    threads: Count
    save_every: Count = Field(description="steps between two saved states")
    log_every: Count = Field(description="steps averaged into one line of log.csv")


class Evaluation(Model):
    """What a score is measured on."""

    split: Literal["train", "val", "test"]
    batch: Count


class Need(Model):
    """What a job asks of a cluster's scheduler; local runs heed memory and CPUs alone."""

    minutes: Count = Field(description="time limit; twice, three times as much when tried again")
    mem_mb: Count
    cpus: Count | None = Field(None, description="else training.threads")
    gpus: int = Field(0, ge=0)


class Resources(Model):
    """What the jobs of each rule need; no result depends on it."""

    longest: Count | None = Field(None, description="minutes, the longest job that a site allows")
    miniature: Need
    verify: Need
    prepare: Need
    translate: Need
    stylise: Need
    segment: Need
    adapt: Need
    evaluate: Need
    release: Need
    predictions: Need


class Export(Model):
    """How raw images go through a generator: whole, or in tiles where they have more pixels."""

    tile: Size
    overlap: int = Field(ge=8, description="pixels over which two tiles fade into each other")


class Segmenter(Model):
    """A run of supervised training: F_i, F_A's start, the final F or the oracle."""

    train_on: Annotated[list[str], Field(min_length=1)]
    start: Address | None = None
    steps: Count | None = None
    oracle: bool = False


class Task(Model):
    """F_A: the segmenter it starts from; updated every n-th step (0 = never)."""

    start: Name
    update_every: int = Field(ge=0)


class Translator(Model):
    """A run of pixel-level adaptation over one or more sources."""

    sources: Annotated[list[Name], Field(min_length=1)]
    target: Name
    start: list[Name] = []
    shared: bool = Field(True, description="one D_T for all sources")
    semantic: Literal["none", "sc", "dsc"] = "none"
    sad: bool = False
    ccd: bool = False
    judges: dict[Name, Name] = {}
    task: Task | None = None
    steps: Count | None = None


class Adaptation(Model):
    """A run of feature-level alignment."""

    method: Literal["adda"]
    start: Name
    target: Name
    steps: Count | None = None


class Row(Model):
    """A line of a table: its name, the paper's setting and the run it shows."""

    row: Name
    setting: str
    run: Address


class Table(Model):
    """Rows evaluated on one target."""

    target: Name
    rows: Annotated[list[Row], Field(min_length=1)]


class Params(Model):
    """The whole of params.yaml at one scale."""

    scale: Literal["miniature", "paper"]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    miniature: Miniature
    layouts: dict[Name, Layout] = Field({}, description="datasets of one's own")
    domains: dict[Name, Domain]
    networks: Networks
    training: Training
    evaluation: Evaluation
    resources: Resources
    export: Export
    segmenters: dict[Name, Segmenter]
    translators: dict[Name, Translator]
    adaptations: dict[Name, Adaptation]
    tables: dict[Name, Table]
    paper: dict[str, Any] = Field({}, description="what `scale: paper` says otherwise")

    def members(self, domain: str) -> list[str]:
        """Datasets behind a domain: itself, or the parts of its union."""
        return self.domains[domain].union or [domain]

    def dataset(self, domain: str) -> Dataset:
        """The dataset of that name; Refusal when params.yaml has none, or a union."""
        datasets = [name for name, entry in self.domains.items() if not entry.union]
        known("a command", domain, datasets)
        entry = self.domains[domain].model_dump(exclude={"union"})
        return Dataset(own=self.layouts.get(entry["layout"]), **entry)

    def run(self, kind: str, name: str) -> Segmenter | Translator | Adaptation:
        """The run of that kind and name; Refusal when params.yaml has none."""
        runs = getattr(self, kind)
        if name not in runs:
            raise Refusal(f"params.yaml has no {kind}.{name}; {_allowed(name, runs)}.")
        return runs[name]


def load(path: Path = Path("params.yaml")) -> Params:
    """Read, type and cross-check params.yaml at its current scale; Refusal says what is wrong."""
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
    return resolve(raw, str(path))


def resolve(raw: Mapping[str, Any], origin: str = "params.yaml") -> Params:
    """Settings from the mapping in params.yaml, typed and cross-checked, or Refusal."""
    if raw.get("scale") == "paper" and isinstance(raw.get("paper"), Mapping):
        raw = _merge({key: raw[key] for key in raw if key != "paper"}, raw["paper"])
    try:
        params = Params.model_validate(raw)
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


def needs(params: Params, address: str) -> list[str]:
    """Addresses `kind/run` of the runs that a run starts from, learns from or is judged by."""
    kind, name = address.split("/")
    run = params.run(kind, name)
    if isinstance(run, Segmenter):
        translated = [f"translators/{item.split('/')[0]}" for item in run.train_on if "/" in item]
        return translated + ([run.start] if run.start else [])
    if isinstance(run, Translator):
        segmenters = [*run.judges.values(), *([run.task.start] if run.task else [])]
        return [f"translators/{s}" for s in run.start] + [f"segmenters/{s}" for s in segmenters]
    return [f"segmenters/{run.start}"]


def _merge(base: Any, other: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(other, Mapping)):
        return other
    merged = dict(base)
    for key, value in other.items():
        merged[key] = _merge(base[key], value) if key in base else value
    return merged


def _sentence(error: ValidationError) -> str:
    """The first problem as a sentence: the key, what stood there, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        model: Any = Params
        for part in first["loc"][:-1]:
            model = _inner(model, part)
        fields = [name for name in model.model_fields if name != "paper"] if model else []
        return f"unknown key {key}; {_allowed(str(first['loc'][-1]), fields)}."
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


def _allowed(word: str, names: Any) -> str:
    close = difflib.get_close_matches(word, list(names), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(names) or 'none'}"


def known(key: str, word: str, names: Any) -> None:
    """Refusal when a key names something that is not among these."""
    if word not in names:
        raise Refusal(f"{key} names {word}, which is unknown; {_allowed(word, names)}.")


def _check_layouts(params: Params) -> None:
    for name, layout in params.layouts.items():
        key = f"layouts.{name}"
        if name in labels.TABLES:
            raise Refusal(f"{key} has the name of a release's layout; choose another.")
        for side in ("images", "labels"):
            pattern = getattr(layout, side)
            if not re.fullmatch(r"([^{}]*({split}[^{}]*)?/)?{name}[^{}/]*", pattern):
                raise Refusal(
                    f"{key}.{side} is {pattern}; write a path such as {side}/{{split}}/{{name}}.png"
                    ", where {split} may be left out."
                )
            if pattern.startswith("/") or ".." in Path(pattern).parts:
                raise Refusal(f"{key}.{side} is {pattern}; it must stay below the domain's root.")
        if ("{split}" in layout.images) != ("{split}" in layout.labels):
            raise Refusal(f"{key} has {{split}} in only one of images and labels; use it in both.")
        images, truths = layout.images.split("{name}"), layout.labels.split("{name}")
        if images[0] == truths[0] and (
            images[1].endswith(truths[1]) or truths[1].endswith(images[1])
        ):
            raise Refusal(
                f"{key} cannot tell images from labels; keep them in folders of their own."
            )
        for split, folder in layout.folders.items():
            known(f"{key}.folders", split, ("train", "val", "test"))
            if folder.startswith("/") or ".." in Path(folder).parts:
                raise Refusal(f"{key}.folders has {folder}; it must stay below the domain's root.")
        if bool(layout.ids) == bool(layout.colours):
            raise Refusal(f"{key} needs ids, or colours where labels are colour images.")
        if isinstance(layout.ids, str):
            known(f"{key}.ids", layout.ids, labels.TABLES)
            continue
        values = layout.ids or layout.colours or {}
        for word in values:
            known(key, word, labels.CLASSES)
        all_values = [value for each in values.values() for value in each] + layout.ignore
        for value in all_values:
            if isinstance(value, int) != bool(layout.ids):
                raise Refusal(f"{key}.ignore has {value}; it must be of the kind of the classes'.")
            if all_values.count(value) > 1:
                raise Refusal(f"{key} gives {value} to two classes; a value has one meaning.")


def _check_domains(params: Params) -> None:
    layouts = [*labels.TABLES, *params.layouts]
    for name, domain in params.domains.items():
        key = f"domains.{name}"
        if domain.layout:
            known(f"{key}.layout", domain.layout, layouts)
            _check_splits(key, domain, params.layouts.get(domain.layout))
        if domain.union is not None:
            if domain.layout or domain.root or domain.size:
                raise Refusal(
                    f"{key} has both union and layout, root or size; keep one of the two."
                )
            for member in domain.union:
                known(f"{key}.union", member, params.domains)
                if params.domains[member].union:
                    raise Refusal(f"{key}.union names {member}, itself a union; name its parts.")
        elif not (domain.layout and domain.root and domain.size):
            raise Refusal(f"{key} needs layout, root and size (or union alone).")
        elif params.scale == "miniature":
            if domain.layout in params.layouts:
                raise Refusal(
                    f"{key}.layout is {domain.layout}, which the miniature does not draw; put the "
                    "domain under paper.domains and set scale: paper."
                )
            if name not in params.miniature.images:
                raise Refusal(f"miniature.images lacks {name}: say how many images of it to draw.")
            if domain.root != f"data/miniature/{name}":
                raise Refusal(
                    f"{key}.root is {domain.root}, but {name} is drawn at data/miniature/{name}."
                )
            if domain.layout == "synthia" and set(params.miniature.images[name]) != {"train"}:
                raise Refusal(
                    f"miniature.images.{name} must be train alone: SYNTHIA has no splits."
                )


def _check_splits(key: str, domain: Domain, own: Layout | None) -> None:
    by_folder = "{split}" in own.images if own else domain.layout not in ("gta5", "synthia")
    if domain.splits != "given" and by_folder:
        raise Refusal(f"{key}.splits: the folders of {domain.layout} are its splits; drop the key.")
    if isinstance(domain.splits, dict) and abs(sum(domain.splits.values()) - 1) > 1e-6:
        raise Refusal(f"{key}.splits add up to {sum(domain.splits.values()):g}; they must to 1.")


def _check_sizes(params: Params) -> None:
    net, smallest = params.networks.segmenter, 16
    if net.norm == "group" and any(width % 8 for width in (*net.widths, net.head)):
        raise Refusal("networks.segmenter: norm group needs widths and head in multiples of 8.")
    if min(params.miniature.size) < smallest:
        raise Refusal(f"miniature.size is {params.miniature.size}; scenes need {smallest} pixels.")
    for section in ("segmenter", "translator", "adaptation"):
        height, width = getattr(params.training, section).crop
        for name, domain in params.domains.items():
            size = domain.size or (height, width)
            if min(height, width) < smallest or height > size[0] or width > size[1]:
                raise Refusal(
                    f"training.{section}.crop is {height}x{width}; it must be at least {smallest} "
                    f"pixels and at most domains.{name}.size, {size[0]}x{size[1]}."
                )


def _check_export(params: Params) -> None:
    tile, overlap = params.export.tile, params.export.overlap
    if 2 * overlap > min(tile):
        raise Refusal(
            f"export.overlap is {overlap}; it must be at most half of both sides of export.tile, "
            f"{tile[0]}x{tile[1]}."
        )


def _check_runs(params: Params) -> None:
    targets = {translator.target for translator in params.translators.values()}
    targets |= {adaptation.target for adaptation in params.adaptations.values()}
    for name, translator in params.translators.items():
        _check_translator(params, f"translators.{name}", translator)
    for name, segmenter in params.segmenters.items():
        _check_segmenter(params, f"segmenters.{name}", segmenter, targets)
    for name, adaptation in params.adaptations.items():
        key = f"adaptations.{name}"
        known(f"{key}.start", adaptation.start, params.segmenters)
        if len(params.segmenters[adaptation.start].train_on) > params.training.adaptation.batch:
            raise Refusal(f"{key} has more sets than training.adaptation.batch has images.")
        _check_target(params, f"{key}.target", adaptation.target)


def _check_segmenter(params: Params, key: str, run: Segmenter, targets: set[str]) -> None:
    for item in run.train_on:
        translator, _, domain = item.rpartition("/")
        if translator:
            known(f"{key}.train_on", translator, params.translators)
            known(f"{key}.train_on {item}", domain, params.translators[translator].sources)
            continue
        known(f"{key}.train_on", item, params.domains)
        if not run.oracle and targets & set(params.members(item)):
            raise Refusal(
                f"{key}.train_on names {item}, a target, whose labels only evaluation and the "
                "oracle may read; say oracle: true if that is what this run is."
            )
    if len(run.train_on) > params.training.segmenter.batch:
        raise Refusal(f"{key}.train_on has more sets than training.segmenter.batch has images.")
    if run.start:
        kind, name = run.start.split("/")
        known(f"{key}.start", name, getattr(params, kind))
        if kind == "translators" and not params.translators[name].task:
            raise Refusal(f"{key}.start is {run.start}, which has no task segmenter to start from.")


def _check_target(params: Params, key: str, target: str) -> None:
    known(key, target, params.domains)
    if params.domains[target].union:
        raise Refusal(f"{key} is {target}, a union; a target is one dataset.")


def _check_translator(params: Params, key: str, run: Translator) -> None:
    for source in run.sources:
        known(f"{key}.sources", source, params.domains)
        if run.target in params.members(source):
            raise Refusal(f"{key}: {run.target} is both source and target; name two domains.")
    if len(set(run.sources)) < len(run.sources):
        raise Refusal(f"{key}.sources names a domain twice; name each once.")
    _check_target(params, f"{key}.target", run.target)
    if len(run.sources) < 2 and (run.sad or run.ccd):
        raise Refusal(f"{key}: sad and ccd compare sources, and there is one; switch them off.")
    started = [s for name in run.start if name in params.translators
               for s in params.translators[name].sources]  # fmt: skip
    for name in run.start:
        known(f"{key}.start", name, params.translators)
        if params.translators[name].target != run.target:
            raise Refusal(f"{key}.start: {name} has another target than {run.target}.")
    if run.start and sorted(started) != sorted(run.sources):
        raise Refusal(f"{key}.start covers {', '.join(started)}; sources are {run.sources}.")
    if run.judges and run.semantic == "none":
        raise Refusal(f"{key} has judges but semantic: none; drop them or say sc or dsc.")
    if run.semantic != "none" and set(run.judges) != set(run.sources):
        raise Refusal(f"{key}.judges must name one segmenter for each of {run.sources}.")
    if run.semantic == "dsc" and not run.task:
        raise Refusal(f"{key}: semantic dsc needs task: {{start: RUN, update_every: N}}.")
    for source, judge in run.judges.items():
        known(f"{key}.judges", source, run.sources)
        known(f"{key}.judges.{source}", judge, params.segmenters)
    if run.task:
        known(f"{key}.task.start", run.task.start, params.segmenters)


def _check_tables(params: Params) -> None:
    if "miou" not in params.tables:
        raise Refusal("tables.miou is missing: it is what results/miou.csv holds.")
    if len(set(params.seeds)) < len(params.seeds):
        raise Refusal("seeds names a seed twice; name each once.")
    for name, table in params.tables.items():
        _check_target(params, f"tables.{name}.target", table.target)
        split, drawn = params.evaluation.split, params.miniature.images.get(table.target, {})
        if params.scale == "miniature" and split not in drawn:
            raise Refusal(f"evaluation.split is {split}; miniature.images.{table.target} has none.")
        rows = [row.row for row in table.rows]
        for row in table.rows:
            kind, run = row.run.split("/")
            known(f"tables.{name} row {row.row}", run, getattr(params, kind))
            if kind == "translators":
                raise Refusal(f"tables.{name} row {row.row} names a translator; name a segmenter.")
            if rows.count(row.row) > 1:
                raise Refusal(f"tables.{name} has two rows called {row.row}; rename one.")


def _check_cycles(params: Params) -> None:
    done: set[str] = set()

    def visit(address: str, path: list[str]) -> None:
        if address in path:
            circle = " -> ".join([*path[path.index(address) :], address])
            raise Refusal(f"these runs wait for each other: {circle}; break the circle.")
        if address not in done:
            for other in needs(params, address):
                visit(other, [*path, address])
            done.add(address)

    for kind in ("segmenters", "translators", "adaptations"):
        for name in getattr(params, kind):
            visit(f"{kind}/{name}", [])


CHECKS = (
    _check_layouts,
    _check_domains,
    _check_sizes,
    _check_export,
    _check_runs,
    _check_tables,
    _check_cycles,
)

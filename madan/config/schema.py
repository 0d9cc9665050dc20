"""The models of params.yaml: which keys there are, of which types."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field

from madan.config.data_settings import Dataset, Domain, Layout, Miniature
from madan.config.keys import Count, Model, Name, Positive, Size, Weight
from madan.config.method_settings import Cla, SelfTraining
from madan.config.network_settings import (
    AnySegmenterNetwork,
    Backbone,
    NetworkName,
    Networks,
    TorchvisionNetwork,
)
from madan.config.overrides import changed
from madan.config.training_settings import (
    AdaptationTraining,
    Level,
    MdanTraining,
    SegmenterTraining,
    Training,
    TranslatorTraining,
)
from madan.errors import Refusal, allowed, known

Address = Annotated[
    str, Field(pattern=r"^(segmenters|translators|adaptations|released)/[a-z0-9][a-z0-9-]*$")
]
Judge = Annotated[
    str,
    Field(pattern=r"^(released/)?[a-z0-9][a-z0-9-]*$", description="a segmenter, or released/NAME"),
]
Start = Annotated[str, Field(pattern=r"^(translators/)?[a-z0-9][a-z0-9-]*$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Gpus = Annotated[int | None, Field(ge=0, description="else resources.<rule>.gpus")]
OwnTraining = Annotated[
    dict[str, dict[str, Any]],
    Field(description="keys of the sections of `training` that this run has otherwise"),
]
OwnNetworks = Annotated[
    dict[str, dict[str, Any]],
    Field(description="keys of the sections of `networks` that this run has otherwise"),
]
# The sections of `networks` that segmenters have, by architecture, and those of translators.
SEGMENTING = {"fcn8s": "segmenter", "drn26": "drn26", "deeplabv2-resnet101": "deeplabv2"}
GENERATING = ("generator", "discriminator")
# Keys of training.adaptation that feature alignment along with L_task reads.
WITH_TASK = ("lr_discriminator", "momentum", "on", "classwise", "weight")


class Verdict(Model):
    """How near a published figure a row's mean over seeds must lie."""

    points: Weight = Field(description="of mIoU; nearer is `reproduced`")
    deviations: Weight = Field(description="of the seeds; nearer is `within seed noise`")


class Evaluation(Model):
    """What a score is measured on, and how it compares with what was published."""

    split: Literal["train", "val", "test"]
    batch: Count
    verdict: Verdict


class Need(Model):
    """What a job asks of a cluster's scheduler; local runs heed memory and CPUs alone."""

    minutes: Count = Field(description="time limit; twice, three times as much when tried again")
    mem_mb: Count
    cpus: Count | None = Field(None, description="else training.threads")
    gpus: int = Field(0, ge=0)


class Resources(Model):
    """What the jobs of each rule need; no result depends on it."""

    longest: Count | None = Field(None, description="minutes, the longest job that a site allows")
    gres: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_:-]+$",
        description="name of GPUs (NAME or NAME:TYPE) where Slurm accepts only --gres=NAME:N",
    )  # fmt: skip
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
    import_weights: Need


class Export(Model):
    """How raw images go through a generator: whole, or in tiles where they have more pixels."""

    tile: Size
    overlap: int = Field(ge=8, description="pixels over which two tiles of F fade into each other")
    height: int = Field(0, ge=0, description="at which a generator sees raw images; 0: their own")


class Segmenter(Model):
    """A run of supervised training: F_i, F_A's start, the final F or the oracle."""

    train_on: Annotated[list[str], Field(min_length=1)]
    network: NetworkName = "fcn8s"
    start: Address | None = None
    steps: Count | None = None
    accumulate: Count | None = Field(None, description="else that of the section of training")
    gpus: Gpus = None
    training: OwnTraining = {}
    networks: OwnNetworks = {}
    oracle: bool = False


class Released(Model):
    """Weights that others published: imported, not trained."""

    file: str = Field(description="a .pth; or torchvision, which fetches what it has of ImageNet")
    network: Literal["fcn8s", "drn26", "generator", "vgg16"] | Backbone
    as_released: bool = Field(
        False, description="without the skip heads, which the release's loader drops"
    )


class Task(Model):
    """F_A: the segmenter it starts from, if not fresh; updated every n-th step (0 = never)."""

    start: Name | None = None
    update_every: int = Field(ge=0)
    lr: Positive | None = Field(None, description="else training.translator.task_lr")
    schedule: Literal["constant", "linear", "one-cycle"] = Field(
        "constant", description="of its rate over the run's steps; linear falls as the generators'"
    )


class Translator(Model):
    """A run of pixel-level adaptation over one or more sources."""

    sources: Annotated[list[Name], Field(min_length=1)]
    target: Name
    start: list[Name] = []
    shared: bool = Field(True, description="one D_T for all sources")
    semantic: Literal["none", "sc", "dsc"] = "none"
    sad: bool = False
    ccd: bool = False
    cag: bool = Field(False, description="GAN terms, cycle and semantic loss at several crop sizes")
    judges: dict[Name, Judge] = {}
    task: Task | None = None
    steps: Count | None = None
    accumulate: Count | None = Field(None, description="else that of the section of training")
    gpus: Gpus = None
    training: OwnTraining = {}
    networks: OwnNetworks = {}
    keep: list[Count] = Field([], description="steps after which the generators are saved, too")


class Adaptation(Model):
    """A run of adaptation of F: after L_task (adda) or along with it (the other methods)."""

    method: Literal["adda", "feat", "mdan", "self-training"]
    start: Start | None = Field(None, description="a segmenter, or translators/RUN for its F_A")
    train_on: list[str] = Field([], description="labelled sets; adda has those of its start")
    target: Name
    steps: Count | None = None
    accumulate: Count | None = Field(None, description="else that of the section of training")
    gpus: Gpus = None
    training: OwnTraining = {}
    networks: OwnNetworks = {}
    weight: Weight | None = Field(None, description="else that of the method's section of training")
    on: Level | None = Field(None, description="else training.adaptation's")
    classwise: bool | None = Field(None, description="else training.adaptation's")
    cla: bool = Field(False, description="with feat: category-level alignment of MADAN+, too")
    masked: bool = Field(False, description="with self-training: masked image consistency, too")


class Row(Model):
    """A line of a table: its name, the paper's setting and the run it shows."""

    row: Name
    setting: str
    run: Address
    scale: Name | None = Field(
        None, description="at this scale alone, and at those that stand on it"
    )
    published: str | None = Field(None, description="the paper's figure: setting/method")
    against: Name | None = Field(None, description="the row it is compared with, seed by seed")


class Table(Model):
    """Rows evaluated on one target."""

    target: Name
    seeds: Seeds | None = Field(None, description="of this table; else those of all")
    against: Name | None = Field(None, description="the row that all others are compared with")
    rows: Annotated[list[Row], Field(min_length=1)]


class Figure(Model):
    """A picture: what it shows, and of which runs."""

    shows: Literal[
        "translation", "qualitative", "classes", "confusion", "heatmap", "training",
        "discriminators", "features", "shares", "graph",
    ]  # fmt: skip
    runs: list[Address] = Field([], description="else the rows of its table")
    table: Name = Field("miou", description="gives the target, and titles to runs")
    images: Count = Field(5, description="scenes shown; of features: of each domain")


class Params(Model):
    """The whole of params.yaml at one scale."""

    scale: Name = Field(description="one of `scales`")
    seeds: Seeds
    miniature: Miniature | None = Field(None, description="what is drawn; null: nothing")
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
    released: dict[Name, Released] = {}
    tables: dict[Name, Table]
    figures: dict[Name, Figure] = Field({}, description="pictures: snakemake figures")
    scales: dict[Name, dict[str, Any] | None] = Field(
        description="what each scale says otherwise, and the scale that it stands on (`base`); "
        "null takes a domain, run, table or figure away"
    )

    def seeds_of(self, table: str) -> list[int]:
        """The seeds of a table: its own, else those of all."""
        return self.tables[table].seeds or self.seeds

    @property
    def every_seed(self) -> list[int]:
        """The seeds of all, then those that only some table has."""
        return list(
            dict.fromkeys([*self.seeds, *(s for t in self.tables for s in self.seeds_of(t))])
        )

    def world(self) -> Miniature:
        """The drawn world; Refusal where this scale draws nothing."""
        if self.miniature is None:
            raise Refusal(f"scale is {self.scale}, which draws nothing; set scale: miniature.")
        return self.miniature

    def drawn(self, domain: str) -> dict[str, int]:
        """Images to draw of a dataset, by split; none where its data is not drawn."""
        images = self.miniature.images if self.miniature else {}
        return {str(split): count for split, count in images.get(domain, {}).items()}

    def members(self, domain: str) -> list[str]:
        """Datasets behind a domain: itself, or the parts of its union."""
        return self.domains[domain].union or [domain]

    def dataset(self, domain: str) -> Dataset:
        """The dataset of that name; Refusal when params.yaml has none, or a union."""
        datasets = [name for name, entry in self.domains.items() if not entry.union]
        known("a command", domain, datasets)
        entry = self.domains[domain].model_dump(exclude={"union"})
        return Dataset(own=self.layouts.get(entry["layout"]), **entry)

    def has_no_labels(self, domain: str) -> list[str]:
        """The datasets behind a domain whose layout has `labels: null`."""
        layouts = {name: self.domains[name].layout for name in self.members(domain)}
        bare = {name for name, layout in self.layouts.items() if layout.labels is None}
        return [name for name, layout in layouts.items() if layout in bare]

    def alignment(self, run: Adaptation) -> AdaptationTraining:
        """training.adaptation as this run has it."""
        own = run.model_dump(include={"weight", "on", "classwise"}, exclude_none=True)
        section = changed(self.training.adaptation, run.training.get("adaptation", {}))
        return section.model_copy(update=own)

    def mdan(self, run: Adaptation) -> MdanTraining:
        """training.mdan as this run has it."""
        own = run.model_dump(include={"weight"}, exclude_none=True)
        return changed(self.training.mdan, run.training.get("mdan", {})).model_copy(update=own)

    def self_training(self, run: Adaptation) -> SelfTraining:
        """training.self_training as this run has it."""
        own = run.model_dump(include={"weight"}, exclude_none=True)
        section = changed(self.training.self_training, run.training.get("self_training", {}))
        return section.model_copy(update=own)

    def cla(self, run: Adaptation) -> Cla:
        """training.cla as this run has it."""
        return changed(self.training.cla, run.training.get("cla", {}))

    def sets(self, run: Segmenter | Adaptation) -> list[str]:
        """The labelled sets of a run; adda has those of its start."""
        after = isinstance(run, Adaptation) and run.method == "adda"
        return self.segmenters[str(run.start)].train_on if after else run.train_on

    def learning(
        self, architecture: str, run: "Segmenter | Adaptation | None" = None
    ) -> SegmenterTraining:
        """training.segmenter as a kind of network has it, and a run of it."""
        changes = self.training.by_network.get(cast(NetworkName, architecture))
        own = changes.model_dump(exclude_none=True) if changes else {}
        section = self.training.segmenter.model_copy(update=own)
        if run is None:
            return section
        parts = run.model_dump(include={"accumulate"}, exclude_none=True)
        return changed(section, run.training.get("segmenter", {})).model_copy(update=parts)

    def translating(self, run: Translator) -> TranslatorTraining:
        """training.translator as this run has it."""
        own = run.model_dump(include={"accumulate"}, exclude_none=True)
        section = changed(self.training.translator, run.training.get("translator", {}))
        return section.model_copy(update=own)

    def architecture(self, address: str) -> str:
        """Which network the segmenter of a run is: one of NetworkName."""
        kind, name = address.split("/")
        if kind == "released":
            return self.released[name].network
        run = self.run(kind, name)
        if isinstance(run, Segmenter):
            return run.network
        if isinstance(run, Adaptation):
            found = started(run)
        else:
            found = [f"segmenters/{run.task.start}"] if run.task and run.task.start else []
        return self.architecture(found[0]) if found else "fcn8s"

    def judge(self, name: str) -> str:
        """Address of a judge: one of `segmenters`, or `released/NAME`."""
        return name if "/" in name else f"segmenters/{name}"

    def translator(self, name: str) -> str:
        """Address of what `name/DOMAIN` is stylised by: a translator, or a released generator."""
        return f"{'released' if name in self.released else 'translators'}/{name}"

    def networks_of(self, address: str, seen: tuple[str, ...] = ()) -> Networks:
        """Sizes of the networks of a run: where it goes on from another run, those of that run.

        Runs that wait for each other (`seen`), which a check refuses, end the search.
        """
        kind, name = address.split("/")
        if kind == "released" or address in seen:
            return self.networks
        run, inherited = self.run(kind, name), dict[str, Any]()
        if isinstance(run, Translator):
            first = [f"segmenters/{run.task.start}"] if run.task and run.task.start else []
            if run.start:
                before = self.networks_of(f"translators/{run.start[0]}", (*seen, address))
                inherited |= {each: getattr(before, each) for each in GENERATING}
        else:
            first = started(run)
        for other in first:
            before = self.networks_of(other, (*seen, address))
            inherited |= {each: getattr(before, each) for each in SEGMENTING.values()}
        return changed(self.networks.model_copy(update=inherited), run.networks)

    def network(self, address: str) -> AnySegmenterNetwork:
        """Sizes of the network that the segmenter of a run is."""
        kind, _, name = self.architecture(address).partition("/")
        if kind == "torchvision":
            return TorchvisionNetwork(name=name)
        section: AnySegmenterNetwork = getattr(
            self.networks_of(address), SEGMENTING.get(kind, "segmenter")
        )
        return section

    def run(self, kind: str, name: str) -> Segmenter | Translator | Adaptation:
        """The run of that kind and name; Refusal when params.yaml has none."""
        runs = getattr(self, kind)
        if name not in runs:
            raise Refusal(f"params.yaml has no {kind}.{name}; {allowed(name, runs)}.")
        return runs[name]


def started(run: Segmenter | Adaptation) -> list[str]:
    """Address of the run whose segmenter F goes on from; none where its weights are fresh."""
    if run.start is None:
        return []
    return [run.start if "/" in run.start else f"segmenters/{run.start}"]

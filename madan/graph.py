"""What is made from what: where an artefact lies, which settings and code make it, what it needs.

An artefact is a folder that appears whole, by rename, with its certificate in it. The settings and
code that it will have follow from params.yaml and the package alone, so they are compared with
those of what exists before any work.
"""

import contextlib
import functools
import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from madan import certificates, layouts, published
from madan.config import digest
from madan.runs import needs, stylable, translator
from madan.schema import Adaptation, Figure, Params, Refusal, Segmenter, Translator, known

T = TypeVar("T")
Run = Segmenter | Translator | Adaptation
MODULES = {
    "miniature": ("native",),
    "verified": ("layouts",),  # What verify finds is data: a better verify retrains nothing.
    "prepared": ("datasets",),
    "translators": ("translation", "segmentation"),
    "stylised": ("stylisation", "generator", "checkpoints"),
    "segmenters": ("segmentation", "checkpoints"),
    "adaptations": ("adaptation", "segmentation", "checkpoints"),
    "scores": ("evaluation", "segmentation", "checkpoints"),
    "releases": ("export", "generator", "checkpoints"),
    "predictions": ("export", "segmentation", "checkpoints"),
    "released": ("released", "checkpoints"),
    "tables": ("pages",),
    "figures": ("gallery",),
}
DATA = ("miniature", "verified", "prepared")
FORMS = {
    "verified": "DOMAIN/SPLIT",
    "prepared": "DOMAIN/SPLIT/SHARD",
    "stylised": "TRANSLATOR/SOURCE",
    "releases": "TRANSLATOR/SOURCE",
    "scores": "KIND/RUN/DOMAIN-SPLIT",
    "predictions": "KIND/RUN/DOMAIN-SPLIT",
}


class Artefact(NamedTuple):
    """A node of the graph, such as ("segmenters", "pooled", 0) or ("prepared", "gta5/train/0")."""

    kind: str
    name: str
    seed: int = 0


class Graph:
    """Every artefact of one params.yaml: folder, settings, code and inputs."""

    def __init__(self, params: Params, package: Path = Path(__file__).parent):
        self.params = params
        self.package = package
        self._promises: dict[Artefact, tuple[str, str]] = {}
        self._codes: dict[str, str] = {}
        self._following: dict[Artefact, int] = {}

    def folder(self, artefact: Artefact) -> Path:
        """Where the artefact lies, relative to the project's folder."""
        kind, name, seed = artefact
        scale = self.params.scale
        if kind == "miniature":
            return Path("data/miniature", name)
        if kind == "verified":
            return Path("data/verified", scale, name)
        if kind == "prepared":
            domain, split, shard = name.split("/")
            dataset = self.params.dataset(domain)
            size = "x".join(map(str, dataset.size))
            part = f"{shard}-of-{dataset.shards}"
            return Path("data/prepared", scale, domain, f"{split}-{size}", part)
        if kind in ("figures", "released"):
            return Path("results", scale, kind, name)
        return Path("results", scale, kind, name, f"seed{seed}")

    def certificate(self, artefact: Artefact) -> Path:
        """The one-line file that stands for the artefact in the graph."""
        if artefact.kind == "tables":
            return self.table(artefact.name).with_suffix(".digest")
        return self.folder(artefact) / "digest"

    def table(self, name: str) -> Path:
        """The CSV file of a table."""
        return Path("results/miou.csv") if name == "miou" else Path("results/tables", f"{name}.csv")

    def pages(self, name: str) -> dict[str, Path]:
        """The files of a table: its lines, and of others than miou what follows from them."""
        path = self.table(name)
        if name == "miou":
            return {"csv": path}
        apart = path.parent / "differences" / path.name
        texts = {end: path.with_suffix(f".{end}") for end in ("md", "tex")}
        return {"csv": path, "differences": apart, **texts}

    def check(self, artefact: Artefact) -> None:
        """Refusal when params.yaml knows no such artefact."""
        kind, name, seed = artefact
        params, said = self.params, "the command line"
        parts, form = name.split("/"), FORMS.get(kind, "RUN")
        if len(parts) != form.count("/") + 1:
            raise Refusal(f"{said} says {name}, expected {form}.")
        if kind == "miniature" and params.scale != "miniature":
            raise Refusal(f"scale is {params.scale}, which draws nothing; set scale: miniature.")
        if kind in ("miniature", "verified", "prepared"):
            known(said, parts[0], [d for d in params.domains if not params.domains[d].union])
        if kind in ("verified", "prepared"):
            known(said, parts[1], layouts.SPLITS)
        if kind == "prepared":
            known(said, parts[2], [str(k) for k in range(params.domains[parts[0]].shards)])
        if kind == "tables":
            known(said, name, params.tables)
        if kind == "stylised":
            known(said, parts[1], stylable(params, said, parts[0]))
        if kind == "releases":
            known(said, parts[1], translator(params, said, parts[0]).sources)
        if kind in ("scores", "predictions"):
            known(said, parts[0], ("segmenters", "adaptations", "translators", "released"))
            known(said, parts[1], getattr(params, parts[0]))
            if parts[0] == "translators" and not params.translators[parts[1]].task:
                raise Refusal(f"{said} says {name}, but translators.{parts[1]} has no task.")
            target, _, split = parts[2].rpartition("-")
            self.check(Artefact("prepared", f"{target}/{split}/0"))
        if kind in ("translators", "segmenters", "adaptations"):
            params.run(kind, name)
        if kind == "figures":
            known(said, name, params.figures)
        if kind == "released":
            known(said, name, params.released)
        if kind not in ("miniature", "prepared", "tables", "figures", "released"):
            known(said, str(seed), [str(each) for each in params.every_seed])

    def inputs(self, artefact: Artefact) -> list[Artefact]:
        """The artefacts that this one is made from."""
        kind, name, seed = artefact
        if kind in ("miniature", "released"):
            return []
        if kind == "verified":
            drawn = self.params.scale == "miniature"
            return [Artefact("miniature", name.split("/")[0])] if drawn else []
        if kind == "prepared":
            return [Artefact("verified", name.rpartition("/")[0])]
        if kind == "stylised":
            run, source = name.split("/")
            address = self.params.translator(run.partition("@")[0])
            return [self.run(address, seed), *self.prepared(source)]
        if kind == "releases":
            run, source = name.split("/")
            members = self.params.members(source)
            verified = [Artefact("verified", f"{member}/train") for member in members]
            return [Artefact("translators", run.partition("@")[0], seed), *verified]
        if kind in ("scores", "predictions"):
            run_kind, run, where = name.split("/")
            target, _, split = where.rpartition("-")
            return [self.run(f"{run_kind}/{run}", seed), *self.prepared(target, split)]
        if kind == "figures":
            return _once(self._shown(self.params.figures[name]))
        if kind == "tables":
            return self.scores(name)
        upstream = [self.run(need, seed) for need in needs(self.params, f"{kind}/{name}")]
        return _once([*upstream, *self._data(self.params.run(kind, name), seed)])

    def run(self, address: str, seed: int) -> Artefact:
        """The artefact of the run `kind/name`; what was released has no seeds."""
        kind, name = address.split("/")
        return Artefact(kind, name, 0 if kind == "released" else seed)

    def prepared(self, domain: str, split: str = "train") -> list[Artefact]:
        """The shards of a domain, or of all members of a union."""
        return [
            Artefact("prepared", f"{member}/{split}/{shard}")
            for member in self.params.members(domain)
            for shard in range(self.params.domains[member].shards)
        ]

    def scores(self, table: str) -> list[Artefact]:
        """The scores behind a table: rows in their order, seeds within a row."""
        split = self.params.evaluation.split
        target = self.params.tables[table].target
        return [
            Artefact("scores", f"{row.run}/{target}-{split}", seed)
            for row in self.params.tables[table].rows
            for seed in self.seeds(table, row.run)
        ]

    def seeds(self, table: str, address: str) -> list[int]:
        """The seeds with which a table has a run: of what was released, the first alone."""
        return self.params.seeds_of(table)[: 1 if address.startswith("released/") else None]

    def runs(self, figure: Figure) -> list[str]:
        """Addresses of the runs that a figure shows; what was released was not trained here."""
        rows = [row.run for row in self.params.tables[figure.table].rows]
        if figure.shows in ("training", "discriminators"):
            rows = [run for run in rows if not run.startswith("released/")]
        return figure.runs or rows

    def measured(self, figure: Figure, run: str) -> list[Artefact]:
        """Scores of a run on a figure's target, for every seed of its table."""
        where = f"{self.params.tables[figure.table].target}-{self.params.evaluation.split}"
        return [
            Artefact("scores", f"{run}/{where}", seed) for seed in self.seeds(figure.table, run)
        ]

    def behind(self, figure: Figure) -> dict[str, list[str]]:
        """All that a figure's runs stand on, with their scores and table, upstream first.

        Of every address `kind/name` those it is made from; shards of a set are one, as are seeds.
        """
        ends = [score for run in figure.runs for score in self.measured(figure, run)]
        found: dict[str, dict[str, None]] = {}
        for artefact in self.ancestry(ends or [Artefact("tables", figure.table)]):
            inputs = dict.fromkeys(_address(other) for other in self.inputs(artefact))
            found[_address(artefact)] = found.get(_address(artefact), {}) | inputs
        return {address: list(inputs) for address, inputs in found.items()}

    def everything(self) -> list[Artefact]:
        """Whatever the tables need, upstream first, each once."""
        return self.ancestry([Artefact("tables", table) for table in self.params.tables])

    def absent(self) -> list[str]:
        """Datasets that the tables have yet to read and whose folder is not there."""
        found = [a for a in self.everything() if a.kind == "verified" and not self.inputs(a)]
        waiting = [a.name.split("/")[0] for a in found if not self.certificate(a).exists()]
        return [name for name in _once(waiting) if not self.params.dataset(name).root.exists()]

    def absent_weights(self) -> dict[str, str]:
        """Released weights that the tables have yet to import and whose file is not there."""
        names = [a.name for a in self.everything() if a.kind == "released"]
        files = {name: self.params.released[name].file for name in names}
        return {n: file for n, file in files.items() if self._released(n) == "missing"}

    def ancestry(self, artefacts: Iterable[Artefact]) -> list[Artefact]:
        """The artefacts and all they are made from, upstream first, each once."""
        order: dict[Artefact, None] = {}

        def visit(artefact: Artefact) -> None:
            if artefact not in order:
                for other in self.inputs(artefact):
                    visit(other)
                order[artefact] = None

        for artefact in artefacts:
            visit(artefact)
        return list(order)

    def priority(self, artefact: Artefact) -> int:
        """How many artefacts still follow it on the longest way to a table."""
        if not self._following:
            order = self.everything()
            self._following = dict.fromkeys(order, 0)
            for later in reversed(order):
                for other in self.inputs(later):
                    further = self._following[later] + 1
                    self._following[other] = max(self._following[other], further)
        return self._following.get(artefact, 0)

    def settings(self, artefact: Artefact) -> dict[str, Any]:
        """All of params.yaml that decides what this artefact is, without what lies upstream."""
        kind, name, seed = artefact
        params = self.params
        if kind == "miniature":
            drawn = params.miniature
            look = {"look": drawn.looks[name]} if name in drawn.looks else {}
            its_own = {"layout": params.domains[name].layout, "images": drawn.images[name]}
            return drawn.model_dump(include={"seed", "size"}) | its_own | look
        if kind == "verified":
            domain, split = name.split("/")
            dataset = params.dataset(domain).model_dump(mode="json", exclude={"size", "shards"})
            return dataset | {"split": split}
        if kind == "prepared":
            domain, split, shard = name.split("/")
            of_shard = {"split": split, "shard": int(shard)}
            return params.domains[domain].model_dump(include={"size", "shards"}) | of_shard
        if kind == "released":
            entry = params.released[name]
            sizes = {"generator": "generator", "drn26": "drn26"}.get(entry.network, "segmenter")
            return {
                **entry.model_dump(exclude={"file"}),
                "content": self._released(name),
                "networks": params.networks.model_dump(include={sizes}),
            }
        if kind in ("figures", "tables"):
            return self._shown_settings(artefact)
        training = params.training.model_dump(include={"threads", "compile"})
        if kind in ("stylised", "releases"):
            _, at, step = name.split("/")[0].partition("@")
            training |= {"precision": params.training.translator.stylise_precision}
            training |= {"step": int(step)} if at else {}
            return training | (params.export.model_dump() if kind == "releases" else {})
        if kind in ("scores", "predictions"):
            precision = params.training.segmenter.precision
            return training | {"batch": params.evaluation.batch, "precision": precision}
        run = params.run(kind, name)
        training |= {"log_every": params.training.log_every, **self._schedules(artefact, run)}
        if self.processes(artefact) > 1:
            training["processes"] = self.processes(artefact)
        if isinstance(run, Translator) and run.task:
            training["class_weights"] = params.training.segmenter.model_dump()["class_weights"]
        return {
            "seed": seed,
            "run": run.model_dump(exclude={"steps"}),
            "training": training,
            "networks": params.networks.model_dump(include=set(self._networks(artefact)))
            | {name: {} for name in self._networks(artefact) if name.startswith("torchvision/")},
        }

    def _shown_settings(self, artefact: Artefact) -> dict[str, Any]:
        """What decides a figure or a table, beside the artefacts that it shows."""
        params, name = self.params, artefact.name
        if artefact.kind == "figures":
            figure = params.figures[name]
            titles = [(row.row, row.run) for row in params.tables[figure.table].rows]
            seeds, split = params.seeds_of(figure.table), params.evaluation.split
            said = {"titles": titles, "seeds": seeds, "split": split}
            drawn = {"graph": self.behind(figure)} if figure.shows == "graph" else {}
            return figure.model_dump() | said | drawn
        table = params.tables[name]
        own = table.model_dump() | {"seeds": params.seeds_of(name)}
        found = {"scale": params.scale, "table": own}
        if params.scale == "miniature":
            return found
        near = params.evaluation.verdict.model_dump()
        return found | {"verdict": near, "published": published.figures(table.target)}

    def _schedules(self, artefact: Artefact, run: Run) -> dict[str, Any]:
        """The sections of `training` that a run goes by, with its own steps."""
        training, steps = self.params.training, {"steps": self.steps(artefact)}
        if isinstance(run, Translator):
            unread = {"stylise_precision"} | (set() if run.cag else {"cag"})
            return {"translator": training.translator.model_dump(exclude=unread) | steps}
        learning = self.params.learning(
            self.params.architecture(f"{artefact.kind}/{artefact.name}")
        )
        if isinstance(run, Segmenter):
            return {"segmenter": learning.model_dump() | steps}
        if run.method == "adda":
            return {"adaptation": self.params.alignment(run).model_dump() | steps}
        section = {"segmenter": learning.model_dump() | steps}
        if run.method == "mdan":
            return section | {"mdan": self.params.mdan(run).model_dump()}
        if run.method == "self-training":
            unread = set() if run.masked else {"masking"}
            own = self.params.self_training(run).model_dump(exclude=unread)
            return section | {"self_training": own}
        if run.cla:
            section["cla"] = training.cla.model_dump()
        with_task = {"lr_discriminator", "momentum", "on", "classwise", "weight"}
        return section | {"adaptation": self.params.alignment(run).model_dump(include=with_task)}

    def processes(self, artefact: Artefact) -> int:
        """Processes that train a run together: as many as its rule asks for GPUs, at least one."""
        needs = self.params.resources
        asked = {"translators": needs.translate, "segmenters": needs.segment}
        return max(1, asked.get(artefact.kind, needs.adapt).gpus)

    def steps(self, artefact: Artefact) -> int:
        """Steps of a training run: its own, or those of its kind."""
        training, run = self.params.training, self.params.run(artefact.kind, artefact.name)
        if isinstance(run, Translator):
            return run.steps or training.translator.steps
        after = isinstance(run, Adaptation) and run.method == "adda"
        return run.steps or (training.adaptation if after else training.segmenter).steps

    def promise(self, artefact: Artefact) -> tuple[str, str]:
        """Digests (settings, code) that the artefact will have when made now, upstream included."""
        if artefact not in self._promises:
            upstream = [self.promise(other) for other in self.inputs(artefact)]
            settings = digest([self.settings(artefact), [settings for settings, _ in upstream]])
            code = self._code(artefact.kind)
            self._promises[artefact] = settings, digest([code, [code for _, code in upstream]])
        return self._promises[artefact]

    def _code(self, kind: str) -> str:
        if kind not in self._codes:
            memory = Path("state/code", platform.node(), kind)
            files = sorted(self.package.glob("*.py"))
            find = functools.partial(certificates.code_digest, self.package, *MODULES[kind])
            self._codes[kind] = certificates.remembered(memory, files, find)
        return self._codes[kind]

    def planned(self, artefact: Artefact) -> str:
        """The promise as one word, which a rule hands to its command.

        Of raw data the number and bytes of their files too, by which changed files are noticed.
        """
        words = list(self.promise(artefact))
        if artefact.kind == "verified" and self.params.scale != "miniature":
            words.append("-".join(map(str, self._listing(artefact))))
        return ".".join(words)

    def upstream(self, artefact: Artefact) -> list[dict[str, str]]:
        """Certificates of what an artefact is made from.

        Refusal when one is missing or was made with other settings or code than promised.
        """
        found = []
        for other in self.inputs(artefact):
            path = self.certificate(other)
            found.append(certificates.read(path))
            if not self._is_promised(other):
                raise Refusal(
                    f"{path.parent} was made with other settings or code: snakemake {path}"
                )
        return found

    def verify(self, artefact: Artefact) -> None:
        """Refusal when the files that an artefact is made from are not what they were certified as.

        Files that this machine has read before and that look untouched are not read again. A drawn
        domain is left out: `prepare` decodes and checks each of its images.
        """
        for other in self.inputs(artefact):
            if other.kind != "miniature":
                folder = self.folder(other)
                certificates.verify(folder, Path("state/verified", platform.node(), folder))

    def certify(self, artefact: Artefact, folder: Path, files: Iterable[Path]) -> str:
        """The one-line certificate of an artefact whose files, in `folder`, are these."""
        upstream, files = self.upstream(artefact), list(files)
        settings, code = self.promise(artefact)
        content = certificates.digest_files(files, folder)
        data = digest(sorted({other["data"] for other in upstream}))
        line = {
            "content": content,
            "settings": settings,
            "code": code,
            "inputs": digest([other["content"] for other in upstream]),
            "data": content if artefact.kind in (*DATA, "released") else data,
            "files": len(files),
        }
        return json.dumps(line) + "\n"

    @contextlib.contextmanager
    def publish(self, artefact: Artefact) -> Iterator[Path]:
        """A temporary folder that becomes the artefact, certified, if the block ends well.

        Refusal when another process is making it, such as one that a killed Snakemake left behind.
        """
        folder = self.folder(artefact)
        fresh = folder.with_name(f".{folder.name}.new")
        with certificates.alone(Path("state/locks", folder), folder):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            try:
                yield fresh
                files = sorted(path for path in fresh.rglob("*") if path.is_file())
                (fresh / "digest").write_text(self.certify(artefact, fresh, files))
                certificates.replace_folder(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def _listing(self, artefact: Artefact) -> Sequence[int]:
        """Number and bytes of the raw files; where they are gone, those that were verified."""
        domain, split = artefact.name.split("/")
        dataset, verified = self.params.dataset(domain), self.folder(artefact) / "items.json"
        if dataset.root.exists() or not verified.exists():
            return layouts.listing(dataset, split)
        return list(json.loads(verified.read_text())["listing"])

    def _released(self, name: str) -> str:
        """SHA-256 of a released file; where it is gone, of the one that was imported."""
        file, report = self.params.released[name].file, self.folder(Artefact("released", name))
        if file == "torchvision":
            return file
        found = certificates.content(Path(file), Path("state/released", platform.node(), name))
        if found is None and (told := report / "report.json").exists():
            try:
                found = str(json.loads(told.read_text())["sha256"])
            except (ValueError, KeyError, TypeError):
                raise Refusal(
                    f"{told} is damaged, and {file}, which it tells of, is gone: put the file back "
                    f"and delete {report}."
                ) from None
        return found or "missing"

    def is_made(self, artefact: Artefact) -> bool:
        """Whether it lies there as it would be made now, as far as settings and code go."""
        return self.certificate(artefact).exists() and self._is_promised(artefact)

    def _is_promised(self, artefact: Artefact) -> bool:
        said = certificates.read(self.certificate(artefact))
        return (said["settings"], said["code"]) == self.promise(artefact)

    def _shown(self, figure: Figure) -> Iterator[Artefact]:
        """What a figure is drawn from: pictures and features of the first seed, numbers of all."""
        params, runs = self.params, [run.split("/") for run in self.runs(figure)]
        if figure.shows == "graph":
            return  # Drawn from params.yaml alone.
        target, split = params.tables[figure.table].target, params.evaluation.split
        for kind, name in runs:
            if figure.shows in ("classes", "confusion", "heatmap"):
                yield from self.measured(figure, f"{kind}/{name}")
            elif figure.shows in ("training", "discriminators"):
                yield from (Artefact(kind, name, seed) for seed in params.seeds)
            elif figure.shows == "translation":
                for source in params.translators[name].sources:
                    yield Artefact("stylised", f"{name}/{source}", params.seeds[0])
                yield from self._data(params.translators[name], params.seeds[0])
            elif figure.shows != "shares":
                yield self.run(f"{kind}/{name}", params.seeds[0])
            if kind == "released":
                continue  # Trained elsewhere, on what is not here.
            data = self._data(params.run(kind, name), params.seeds[0])
            if figure.shows == "features":
                yield from data
            if figure.shows == "shares":
                yield from (each for each in data if each.kind == "prepared")
        if figure.shows == "features":
            yield from self.prepared(target)
        if figure.shows in ("qualitative", "shares"):
            yield from self.prepared(target, split)

    def _networks(self, artefact: Artefact) -> list[str]:
        """Sections of `networks` that a run is made of."""
        address = f"{artefact.kind}/{artefact.name}"
        run = self.params.run(artefact.kind, artefact.name)
        own = [] if isinstance(run, Segmenter) else ["feature_discriminator"]
        if isinstance(run, Translator):
            own = ["generator", "discriminator"]
        elif isinstance(run, Adaptation) and run.method == "mdan":
            own = ["source_discriminators"]
        elif isinstance(run, Adaptation) and run.method == "self-training":
            own = []
        segmenters = [need for need in needs(self.params, address) if need[0] != "t"]
        if not isinstance(run, Translator) or run.task:
            segmenters.append(address)
        sizes = {"fcn8s": "segmenter", "drn26": "drn26", "deeplabv2-resnet101": "deeplabv2"}
        kinds = [self.params.architecture(each) for each in segmenters]
        found = [sizes.get(kind, kind) for kind in kinds if kind in sizes or "/" in kind]
        return _once([*own, *found])

    def _data(self, run: Run, seed: int) -> list[Artefact]:
        if isinstance(run, Translator):
            domains = [*run.sources, run.target]
            return [shard for domain in domains for shard in self.prepared(domain)]
        found = []
        for item in self.params.sets(run):
            if "/" in item:
                found.append(Artefact("stylised", item, seed))
            found += self.prepared(item.rpartition("/")[2])
        return found + (self.prepared(run.target) if isinstance(run, Adaptation) else [])


def _address(artefact: Artefact) -> str:
    shard = artefact.kind == "prepared"
    return f"{artefact.kind}/{artefact.name.rpartition('/')[0] if shard else artefact.name}"


def _once(found: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(found))

"""The edges of the graph: what each artefact is made from, and which role each input plays.

`roles` is the only place that says what is made from what. The rules of the workflow name their
inputs by these roles, and the functions in `jobs` take them as arguments.
"""

from collections.abc import Iterable
from functools import singledispatch

from madan.config.runs import pretrained
from madan.config.schema import Figure, Params, started
from madan.pipeline import artefacts
from madan.pipeline.artefacts import Artefact, Prepared

# The artefacts that play a role, by the name under which params.yaml has them.
Role = dict[str, list[Artefact]]


@singledispatch
def roles(artefact: Artefact, params: Params) -> dict[str, Role]:
    """Return what an artefact is made from, by role."""
    return {}


@roles.register
def _(artefact: artefacts.Verified, params: Params) -> dict[str, Role]:
    drawn: list[Artefact] = [artefacts.Drawn(artefact.domain)]
    return {"raw": {artefact.domain: drawn} if params.drawn(artefact.domain) else {}}


@roles.register
def _(artefact: Prepared, params: Params) -> dict[str, Role]:
    verified = artefacts.Verified(artefact.domain, artefact.split)
    return {"verified": {verified.name: [verified]}}


@roles.register
def _(artefact: artefacts.Translator, params: Params) -> dict[str, Role]:
    run, seed = params.translators[artefact.run], artefact.seed
    task = run.task and run.task.start and params.judge(run.task.start)
    if run.task and not task:
        task = pretrained(params, artefact.address)
    judges = {source: artefacts.parse(params.judge(j), seed) for source, j in run.judges.items()}
    return {
        "sources": _sets(params, run.sources),
        "target": _sets(params, [run.target]),
        "start": {name: [artefacts.Translator(name, seed)] for name in run.start},
        "judges": {source: [judge] for source, judge in judges.items()},
        "task": {task: [artefacts.parse(task, seed)]} if task else {},
    }


@roles.register
def _(artefact: artefacts.Stylised, params: Params) -> dict[str, Role]:
    translator = artefacts.parse(params.translator(artefact.run), artefact.seed)
    return {
        "translator": {artefact.translator: [translator]},
        "source": _sets(params, [artefact.source]),
    }


@roles.register
def _(artefact: artefacts.Release, params: Params) -> dict[str, Role]:
    members = params.members(artefact.source)
    source: Role = {member: [artefacts.Verified(member, "train")] for member in members}
    translator = artefacts.Translator(artefact.run, artefact.seed)
    return {"translator": {artefact.translator: [translator]}, "source": source}


@roles.register
def _(artefact: artefacts.Segmenter, params: Params) -> dict[str, Role]:
    run = params.segmenters[artefact.run]
    start = [*started(run), pretrained(params, artefact.address)][0]
    return _labelled(params, run.train_on, start, artefact.seed)


@roles.register
def _(artefact: artefacts.Adaptation, params: Params) -> dict[str, Role]:
    run = params.adaptations[artefact.run]
    start = [*started(run), pretrained(params, artefact.address)][0]
    target = {"target": _sets(params, [run.target])}
    return _labelled(params, params.sets(run), start, artefact.seed) | target


@roles.register(artefacts.Score)
@roles.register(artefacts.Predictions)
def _(artefact: artefacts.Score | artefacts.Predictions, params: Params) -> dict[str, Role]:
    where = f"{artefact.domain}/{artefact.split}"
    return {
        "segmenter": {artefact.run: [artefacts.parse(artefact.run, artefact.seed)]},
        "images": {where: shards(params, artefact.domain, artefact.split)},
    }


@roles.register
def _(artefact: artefacts.Table, params: Params) -> dict[str, Role]:
    table, split = params.tables[artefact.table], params.evaluation.split
    return {
        "scores": {
            row.row: [
                artefacts.Score(row.run, table.target, split, seed)
                for seed in seeds(params, artefact.table, row.run)
            ]
            for row in table.rows
        }
    }


@roles.register
def _(artefact: artefacts.Figure, params: Params) -> dict[str, Role]:
    found: dict[str, Role] = {
        role: {} for role in ("scores", "runs", "segmenters", "stylised", "sources", "target")
    }
    figure = params.figures[artefact.figure]
    if figure.shows == "graph":
        return found  # It is drawn from params.yaml alone.
    split, target = params.evaluation.split, params.tables[figure.table].target
    for address in runs(params, figure):
        _show(params, figure, address, found)
    if figure.shows == "features":
        found["target"] = _sets(params, [target])
    if figure.shows in ("qualitative", "shares"):
        found["target"] = {f"{target}/{split}": shards(params, target, split)}
    return found


def _show(params: Params, figure: Figure, address: str, found: dict[str, Role]) -> None:
    """Add what a figure needs of a run: images and features of the first seed, numbers of all."""
    kind, name = address.split("/")
    seed = params.seeds[0]
    if figure.shows in ("classes", "confusion", "heatmap"):
        found["scores"][address] = measured(params, figure, address)
        return
    if figure.shows in ("training", "discriminators"):
        found["runs"][address] = [artefacts.parse(address, each) for each in params.seeds]
        return
    if figure.shows == "translation":
        run = params.translators[name]
        for source in run.sources:
            stylised = artefacts.Stylised(name, source, seed)
            found["stylised"][f"{name}/{source}"] = [stylised]
        found["sources"] |= _sets(params, run.sources)
        found["target"] |= _sets(params, [run.target])
        return
    if figure.shows in ("qualitative", "features"):
        found["segmenters"][address] = [artefacts.parse(address, seed)]
    if figure.shows in ("features", "shares") and kind != "released":
        data = _data(params, address, seed)
        found["sources"] |= data["images"]
        if figure.shows == "features":
            found["stylised"] |= data["stylised"]


def _data(params: Params, address: str, seed: int) -> dict[str, Role]:
    """The labelled images of a run, and the stylised ones."""
    made = roles(artefacts.parse(address, seed), params)
    images = made["sources"] if "sources" in made else made["images"]
    return {"images": images, "stylised": made.get("stylised", {})}


def _labelled(params: Params, sets: list[str], start: str | None, seed: int) -> dict[str, Role]:
    """The roles of a run that learns from labelled sets: `DOMAIN`, or `TRANSLATOR/SOURCE`."""
    stylised = [item.split("/") for item in sets if "/" in item]
    return {
        "images": _sets(params, [item.rpartition("/")[2] for item in sets]),
        "stylised": {
            f"{translator}/{source}": [artefacts.Stylised(translator, source, seed)]
            for translator, source in stylised
        },
        "start": {start: [artefacts.parse(start, seed)]} if start else {},
    }


def _sets(params: Params, domains: Iterable[str]) -> Role:
    """The training images of domains."""
    return {domain: shards(params, domain) for domain in domains}


def shards(params: Params, domain: str, split: str = "train") -> list[Artefact]:
    """Return the shards of a domain, or of all members of a union."""
    return [
        Prepared(member, split, shard)
        for member in params.members(domain)
        for shard in range(params.domains[member].shards)
    ]


def seeds(params: Params, table: str, address: str) -> list[int]:
    """Return the seeds of a run in a table: the first alone for imported weights."""
    return params.seeds_of(table)[: 1 if address.startswith("released/") else None]


def measured(params: Params, figure: Figure, address: str) -> list[Artefact]:
    """Return the scores of a run on a figure's target, one for every seed of its table."""
    target, split = params.tables[figure.table].target, params.evaluation.split
    found = seeds(params, figure.table, address)
    return [artefacts.Score(address, target, split, seed) for seed in found]


def runs(params: Params, figure: Figure) -> list[str]:
    """Return the addresses of the runs that a figure shows; imported weights have no training."""
    rows = [row.run for row in params.tables[figure.table].rows]
    if figure.shows in ("training", "discriminators"):
        rows = [run for run in rows if not run.startswith("released/")]
    return figure.runs or rows

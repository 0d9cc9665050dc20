"""What params.yaml says that decides an artefact, without what decides its inputs."""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

from madan import published
from madan.config.runs import needs
from madan.config.schema import SEGMENTING, WITH_TASK, Adaptation, Params, Segmenter, Translator
from madan.files import sha256
from madan.pipeline import artefacts
from madan.pipeline.artefacts import Artefact

MEMORY = Path("state/released")
# Of a run, else its section's: what holds stands there.
OWN = {"steps", "accumulate", "gpus", "training", "networks"}


@singledispatch
def settings(artefact: Artefact, params: Params) -> dict[str, Any]:
    """Return all settings that decide an artefact, as plain data."""
    raise TypeError(f"{artefact} has no settings")


@settings.register
def _(artefact: artefacts.Drawn, params: Params) -> dict[str, Any]:
    drawn, name = params.world(), artefact.domain
    look = {"look": drawn.looks[name]} if name in drawn.looks else {}
    own = {"layout": params.domains[name].layout, "images": drawn.images[name]}
    return drawn.model_dump(include={"seed", "size"}) | own | look


@settings.register
def _(artefact: artefacts.Verified, params: Params) -> dict[str, Any]:
    dataset = params.dataset(artefact.domain)
    return dataset.model_dump(mode="json", exclude={"size", "shards"}) | {"split": artefact.split}


@settings.register
def _(artefact: artefacts.Prepared, params: Params) -> dict[str, Any]:
    shaped = params.domains[artefact.domain].model_dump(include={"size", "shards"})
    return shaped | {"split": artefact.split, "shard": artefact.shard}


@settings.register
def _(artefact: artefacts.Imported, params: Params) -> dict[str, Any]:
    entry = params.released[artefact.run]
    sizes = {"generator": "generator", "drn26": "drn26"}.get(entry.network, "segmenter")
    return {
        **entry.model_dump(exclude={"file"}),
        "content": imported_content(artefact, params),
        "networks": params.networks.model_dump(include={sizes}),
    }


@settings.register(artefacts.Stylised)
@settings.register(artefacts.Release)
def _(artefact: artefacts.Stylised | artefacts.Release, params: Params) -> dict[str, Any]:
    found = _numerics(params) | {"precision": stylise_precision(artefact.run, params)}
    if artefact.step is not None:
        found["step"] = artefact.step
    return found | (params.export.model_dump() if isinstance(artefact, artefacts.Release) else {})


@settings.register(artefacts.Score)
@settings.register(artefacts.Predictions)
def _(artefact: artefacts.Score | artefacts.Predictions, params: Params) -> dict[str, Any]:
    precision = params.training.segmenter.precision
    return _numerics(params) | {"batch": params.evaluation.batch, "precision": precision}


@settings.register(artefacts.Translator)
@settings.register(artefacts.Segmenter)
@settings.register(artefacts.Adaptation)
def _(artefact: artefacts.Trained, params: Params) -> dict[str, Any]:
    run = params.run(artefact.kind, artefact.run)
    training = _numerics(params) | {"log_every": params.training.log_every}
    training |= _schedules(artefact, run, params)
    if processes(artefact, params) > 1:
        training["processes"] = processes(artefact, params)
    if isinstance(run, Translator) and run.task:
        training["class_weights"] = params.training.segmenter.model_dump()["class_weights"]
    return {
        "seed": artefact.seed,
        "run": run.model_dump(exclude=OWN),
        "training": training,
        "networks": _networks(artefact, run, params),
    }


@settings.register
def _(artefact: artefacts.Figure, params: Params) -> dict[str, Any]:
    figure = params.figures[artefact.figure]
    titles = [(row.row, row.run) for row in params.tables[figure.table].rows]
    about = {"titles": titles, "seeds": params.seeds_of(figure.table)}
    about["split"] = params.evaluation.split
    return figure.model_dump() | about


@settings.register
def _(artefact: artefacts.Table, params: Params) -> dict[str, Any]:
    table = params.tables[artefact.table]
    own = table.model_dump() | {"seeds": params.seeds_of(artefact.table)}
    found = {"scale": params.scale, "table": own}
    if params.scale != published.SCALE:
        return found
    near = params.evaluation.verdict.model_dump()
    return found | {"verdict": near, "published": published.figures(table.target)}


def steps(artefact: artefacts.Trained, params: Params) -> int:
    """Return the steps of a training run: its own, or those of its kind."""
    run = params.run(artefact.kind, artefact.run)
    if isinstance(run, Translator):
        return run.steps or params.translating(run).steps
    if isinstance(run, Adaptation) and run.method == "adda":
        return run.steps or params.alignment(run).steps
    return run.steps or params.learning("", run).steps


def stylise_precision(translator: str, params: Params) -> str:
    """Return the precision in which the generators of a translator, or imported ones, stylise."""
    if translator in params.translators:
        return params.translating(params.translators[translator]).stylise_precision
    return params.training.translator.stylise_precision


def gpus(artefact: artefacts.Trained, params: Params) -> int:
    """Return how many GPUs a training run asks for: its own number, or that of its rule."""
    needed, own = params.resources, params.run(artefact.kind, artefact.run).gpus
    asked = {"translators": needed.translate, "segmenters": needed.segment}
    return asked.get(artefact.kind, needed.adapt).gpus if own is None else own


def processes(artefact: artefacts.Trained, params: Params) -> int:
    """Return how many processes train a run together: one for each GPU, at least one."""
    return max(1, gpus(artefact, params))


def with_processes(found: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the settings of a training run as they are when `count` processes train it."""
    training = {key: value for key, value in found["training"].items() if key != "processes"}
    return {**found, "training": training | ({"processes": count} if count > 1 else {})}


def imported_content(artefact: artefacts.Imported, params: Params) -> str:
    """Return the SHA-256 of a released file; if it is gone, of the file that was imported."""
    from madan.pipeline import certificates

    file = params.released[artefact.run].file
    if file == "torchvision":
        return file
    found = sha256(Path(file), MEMORY / artefact.run)
    if found is None:
        before = certificates.read(artefact.certificate(params))
        found = str(before.settings.get("content")) if before else None
    return found or "missing"


def _numerics(params: Params) -> dict[str, Any]:
    """What decides the bits of any computation."""
    return params.training.model_dump(include={"threads", "compile"})


def _schedules(
    artefact: artefacts.Trained, run: Translator | Segmenter | Adaptation, params: Params
) -> dict[str, Any]:
    """The sections of `training` that a run uses, with its own steps."""
    own = {"steps": steps(artefact, params)}
    if isinstance(run, Translator):
        unread = {"stylise_precision"} | (set() if run.cag else {"cag"})
        return {"translator": params.translating(run).model_dump(exclude=unread) | own}
    kind = params.architecture(artefact.address)
    section = {"segmenter": params.learning(kind, run).model_dump() | own}
    if isinstance(run, Segmenter):
        return section
    if run.method == "adda":
        return {"adaptation": params.alignment(run).model_dump() | own}
    if run.method == "mdan":
        return section | {"mdan": params.mdan(run).model_dump()}
    if run.method == "self-training":
        unread = set() if run.masked else {"masking"}
        return section | {"self_training": params.self_training(run).model_dump(exclude=unread)}
    if run.cla:
        section["cla"] = params.cla(run).model_dump()
    return section | {"adaptation": params.alignment(run).model_dump(include=set(WITH_TASK))}


def _networks(
    artefact: artefacts.Trained, run: Translator | Segmenter | Adaptation, params: Params
) -> dict[str, Any]:
    """The sections of `networks` that a run is made of; of torchvision's networks the names."""
    own = set() if isinstance(run, Segmenter) else {"feature_discriminator"}
    if isinstance(run, Translator):
        own = {"generator", "discriminator"}
    elif isinstance(run, Adaptation) and run.method == "mdan":
        own = {"source_discriminators"}
    elif isinstance(run, Adaptation) and run.method == "self-training":
        own = set()
    segmenters = [need for need in needs(params, artefact.address) if need[0] != "t"]
    if not isinstance(run, Translator) or run.task:
        segmenters.append(artefact.address)  # Last: its sizes stand before those of a judge.
    found: dict[str, Any] = params.networks_of(artefact.address).model_dump(include=own)
    for address in segmenters:
        kind = params.architecture(address)
        if kind in SEGMENTING:
            section = SEGMENTING[kind]
            found |= params.networks_of(address).model_dump(include={section})
        elif "/" in kind:
            found[kind] = {}
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say of each setting that differs what it was and what it is."""
    was, found = _flat(before), _flat(now)
    return [
        f"{key} was {was.get(key, 'not there')}, is {found.get(key, 'not there')}"
        for key in sorted(was.keys() | found.keys())
        if was.get(key) != found.get(key)
    ]


def _flat(section: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            found |= _flat(value, key)
        else:
            found[key] = value
    return found

"""Whether params.yaml has an artefact: the names of an address against those of the settings."""

import functools
from collections.abc import Iterable
from functools import singledispatch
from pathlib import Path

from madan import folders
from madan.config.runs import stylable, translator
from madan.config.schema import Params, Translator
from madan.data import layouts
from madan.errors import Refusal, known
from madan.pipeline import artefacts
from madan.pipeline.artefacts import Artefact

SAID = "the command line"


def check(artefact: Artefact, params: Params) -> None:
    """Refuse an artefact that params.yaml does not have."""
    _check(artefact, params)
    if str(artefact) != artefact.address:
        known(SAID, str(artefact.seed), [str(each) for each in params.every_seed])


@singledispatch
def _check(artefact: Artefact, params: Params) -> None:
    raise TypeError(f"{artefact} cannot be checked")


@_check.register
def _(artefact: artefacts.Drawn, params: Params) -> None:
    params.world()
    _check_dataset(artefact.domain, params)
    if not params.drawn(artefact.domain):
        raise Refusal(f"{artefact.domain} is not drawn: miniature.images does not have it.")


@_check.register
def _(artefact: artefacts.Verified, params: Params) -> None:
    _check_dataset(artefact.domain, params)
    known(SAID, artefact.split, layouts.SPLITS)


@_check.register
def _(artefact: artefacts.Prepared, params: Params) -> None:
    _check_dataset(artefact.domain, params)
    known(SAID, artefact.split, layouts.SPLITS)
    shards = range(params.domains[artefact.domain].shards)
    known(SAID, str(artefact.shard), [str(shard) for shard in shards])


@_check.register(artefacts.Translator)
@_check.register(artefacts.Segmenter)
@_check.register(artefacts.Adaptation)
def _(artefact: artefacts.Trained, params: Params) -> None:
    run = params.run(artefact.kind, artefact.run)
    sets = run.sources if isinstance(run, Translator) else params.sets(run)
    if bare := without_labels(params, [item.rpartition("/")[2] for item in sets], "train"):
        raise Refusal(
            f"{artefact.address} learns from the labels of {bare[0]}/train, which has none; put "
            "its labels where the layout says, or use it as a target alone."
        )


@_check.register
def _(artefact: artefacts.Imported, params: Params) -> None:
    known(SAID, artefact.run, params.released)


@_check.register
def _(artefact: artefacts.Stylised, params: Params) -> None:
    known(SAID, artefact.source, stylable(params, SAID, artefact.translator))


@_check.register
def _(artefact: artefacts.Release, params: Params) -> None:
    known(SAID, artefact.source, translator(params, SAID, artefact.translator).sources)


@_check.register
def _(artefact: artefacts.Score, params: Params) -> None:
    _check_predicted(artefact, params)
    check_truth(artefact.address, artefact.domain, artefact.split, params)


@_check.register
def _(artefact: artefacts.Predictions, params: Params) -> None:
    known(SAID, artefact.domain, params.domains)
    if members := params.domains[artefact.domain].union:
        raise Refusal(
            f"{SAID} names {artefact.domain}, a union, whose datasets may have images of one name; "
            f"name one of {', '.join(members)}."
        )
    _check_predicted(artefact, params)


def _check_predicted(artefact: artefacts.Score | artefacts.Predictions, params: Params) -> None:
    kind, run = artefact.run.split("/")
    known(SAID, kind, ("segmenters", "adaptations", "translators", "released"))
    known(SAID, run, getattr(params, kind))
    if kind == "translators" and not params.translators[run].task:
        raise Refusal(f"{SAID} names {artefact.name}, but {artefact.run} has no task.")
    known(SAID, artefact.domain, params.domains)
    known(SAID, artefact.split, layouts.SPLITS)


@_check.register
def _(artefact: artefacts.Table, params: Params) -> None:
    known(SAID, artefact.table, params.tables)
    target = params.tables[artefact.table].target
    check_truth(artefact.address, target, params.evaluation.split, params)


@_check.register
def _(artefact: artefacts.Figure, params: Params) -> None:
    known(SAID, artefact.figure, params.figures)


def check_truth(address: str, domain: str, split: str, params: Params) -> None:
    """Refuse an artefact that is to be scored on a split without labels."""
    if bare := without_labels(params, [domain], split):
        raise Refusal(
            f"{address} scores on {bare[0]}/{split}, which has no labels: there is no truth to "
            "score. Score on a labelled split, or make a run by itself and look at what it "
            f"predicts: madan export predictions KIND/RUN {bare[0]}/train."
        )


def without_labels(params: Params, domains: Iterable[str], split: str) -> list[str]:
    """Return the datasets behind domains that have images of a split and not a single label."""
    members = dict.fromkeys(member for domain in domains for member in params.members(domain))
    found = []
    for name in members:
        dataset = params.dataset(name)
        lies = layouts.form(dataset, split)
        if not lies.labels or _one_sided(dataset.root.absolute(), lies.images, lies.labels):
            found.append(name)
    return found


@functools.cache
def _one_sided(root: Path, images: str, labels: str) -> bool:
    """Look at each folder once: a plan asks the same for each of its jobs."""
    return folders.one_sided(root, images, labels)


def _check_dataset(name: str, params: Params) -> None:
    known(SAID, name, [each for each, domain in params.domains.items() if not domain.union])

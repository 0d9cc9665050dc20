"""Whether params.yaml has an artefact: the names of an address against those of the settings."""

from functools import singledispatch

from madan import layouts
from madan.pipeline import artefacts
from madan.pipeline.artefacts import Artefact
from madan.runs import stylable, translator
from madan.schema import Params, Refusal, known

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
    if params.scale != "miniature":
        raise Refusal(f"scale is {params.scale}, which draws nothing; set scale: miniature.")
    _check_dataset(artefact.domain, params)


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
    params.run(artefact.kind, artefact.run)


@_check.register
def _(artefact: artefacts.Imported, params: Params) -> None:
    known(SAID, artefact.run, params.released)


@_check.register
def _(artefact: artefacts.Stylised, params: Params) -> None:
    known(SAID, artefact.source, stylable(params, SAID, artefact.translator))


@_check.register
def _(artefact: artefacts.Release, params: Params) -> None:
    known(SAID, artefact.source, translator(params, SAID, artefact.translator).sources)


@_check.register(artefacts.Score)
@_check.register(artefacts.Predictions)
def _(artefact: artefacts.Score | artefacts.Predictions, params: Params) -> None:
    kind, run = artefact.run.split("/")
    known(SAID, kind, ("segmenters", "adaptations", "translators", "released"))
    known(SAID, run, getattr(params, kind))
    if kind == "translators" and not params.translators[run].task:
        raise Refusal(f"{SAID} names {artefact.name}, but {artefact.run} has no task.")
    _check(artefacts.Verified(artefact.domain, artefact.split), params)


@_check.register
def _(artefact: artefacts.Table, params: Params) -> None:
    known(SAID, artefact.table, params.tables)


@_check.register
def _(artefact: artefacts.Figure, params: Params) -> None:
    known(SAID, artefact.figure, params.figures)


def _check_dataset(name: str, params: Params) -> None:
    known(SAID, name, [each for each, domain in params.domains.items() if not domain.union])

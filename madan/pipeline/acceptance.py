"""Accepting a change of code that alters no result, for which a person answers."""

from dataclasses import replace
from pathlib import Path

from madan.errors import Refusal
from madan.files import digest_files
from madan.pipeline import artefacts, certificates
from madan.pipeline.artefacts import Artefact
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness, input_contents, on_disk


def below(graph: Graph, paths: list[Path]) -> list[Artefact]:
    """Return the artefacts at or below paths, inputs first; Refusal where there is none."""
    places = {each: _place(graph, each).absolute() for each in on_disk(graph)}
    found = set()
    for path in paths:
        whole = path.absolute().parent if path.name == "certificate.json" else path.absolute()
        chosen = {each for each, place in places.items() if place.is_relative_to(whole)}
        if not chosen:
            raise Refusal(f"{path} holds no artefact that params.yaml can name at its scale.")
        found |= chosen
    return [each for each in places if each in found]


def accept(graph: Graph, chosen: list[Artefact], other_code: bool) -> list[Artefact]:
    """Check that artefacts are what today's settings make of today's inputs, byte by byte.

    With `other_code` a change of code is accepted: the certificate then holds today's code and, as
    `accepted`, the code that made the artefact. Tables are left out then: they show the code behind
    their rows, so they are written again. Returns what was accepted; Refusal if settings, inputs or
    bytes are others.
    """
    if other_code:
        chosen = [each for each in chosen if not isinstance(each, artefacts.Table)]
    for artefact in chosen:
        _accept(graph, artefact, other_code)
    staleness = Staleness(graph)
    for artefact in graph.ancestry(chosen):
        if reason := staleness.reason(artefact):
            raise Refusal(f"{artefact} is not current: {reason.text}. Make it anew: snakemake")
    return chosen


def _accept(graph: Graph, artefact: Artefact, other_code: bool) -> None:
    path = graph.certificate(artefact)
    anew = f"have it made anew: snakemake {path}"
    certificate = certificates.read(path)
    if certificate is None:
        raise Refusal(f"{path} cannot be read as a certificate; {anew}")
    content = digest_files(artefact.files(graph.params), graph.folder(artefact))
    if content != certificate.content:
        raise Refusal(
            f"{path} certifies the content {certificate.content}, but its files have {content}: "
            f"fetch them again (dvc checkout) or {anew}"
        )
    reason = Staleness(graph).own_reason(artefact)
    if reason is None:
        return
    if reason.why == "code" and not other_code:
        raise Refusal(
            f"{path} was made by other code: {reason.text}; {anew} - or, if you know that the "
            f"change alters no result: madan accept --code {path}"
        )
    if reason.why != "code":
        raise Refusal(f"{path} cannot be accepted, because {reason.text}; {anew}")
    made_by = certificate.accepted or certificate.code
    accepted = replace(certificate, code=graph.code(artefact), accepted=made_by)
    if accepted.inputs != input_contents(graph, artefact):
        raise Refusal(f"{path} was made from other inputs than those of today; {anew}")
    certificates.write(path, accepted)


def _place(graph: Graph, artefact: Artefact) -> Path:
    table = isinstance(artefact, artefacts.Table)
    return graph.certificate(artefact) if table else graph.folder(artefact)

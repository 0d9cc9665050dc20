"""What lies on disk against what params.yaml and the package say: refused, vouched for, or sound.

Nothing is made anew and nothing is trusted without a word: where a certificate says other settings
or code, and Snakemake has no record by which it would make the artefact again, a person decides.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from madan import certificates, layouts
from madan.config import digest
from madan.graph import Artefact, Graph
from madan.schema import Refusal

Provenance = Callable[[Path], list[Any] | None]


def on_disk(graph: Graph) -> list[Artefact]:
    """The artefacts that exist and that params.yaml can name, at its scale."""
    return [each for each in _nameable(graph) if graph.certificate(each).exists()]


def refuse_strangers(graph: Graph, provenance: Provenance) -> None:
    """Refusal when artefacts on disk are not what is promised and nobody would make them anew.

    `provenance` gives the params under which Snakemake recorded a file, or None. Where those
    differ from today's promise Snakemake reruns the job by itself, and all is well.
    """
    settings: list[str] = []
    code: list[str] = []
    for artefact in on_disk(graph):
        path = graph.certificate(artefact)
        said, promise = certificates.read(path), graph.promise(artefact)
        if (said["settings"], said["code"]) == promise:
            continue
        recorded = provenance(path)
        if recorded is None or any(graph.planned(artefact) in str(param) for param in recorded):
            (code if said["settings"] == promise[0] else settings).append(str(path))
    words = []
    if settings:
        words.append(
            "these were made with other settings than params.yaml says now, and Snakemake has no "
            "record of how. Put the settings back, or have them made anew: "
            f"rm {' '.join(settings)}"
        )
    if code:
        words.append(
            "these were made by other code than the package's, and Snakemake has no record of how. "
            f"Put the code back, or have them made anew: rm {' '.join(code)} - or, if you know "
            f"that the change alters no result: madan vouch --code {' '.join(code)}"
        )
    if words:
        raise Refusal("; ".join(words))


def sound(graph: Graph, artefact: Artefact) -> bool:
    """Whether it is whole and, its certificate says, as it would be made now from what is there."""
    behind = [artefact, *graph.inputs(artefact)]
    if not all(graph.certificate(each).exists() for each in behind):
        return False
    said = certificates.read(graph.certificate(artefact))
    promised = (said["settings"], said["code"]) == graph.promise(artefact)
    return promised and _whole(graph, artefact) and not outdated(graph, artefact)


def outdated(graph: Graph, artefact: Artefact) -> bool:
    """Whether it was made from other content than what lies there now."""
    paths = [graph.certificate(each) for each in (artefact, *graph.inputs(artefact))]
    if not all(path.exists() for path in paths):
        return False
    said, *behind = [certificates.read(path) for path in paths]
    return said["inputs"] != digest([other["content"] for other in behind])


def gone(graph: Graph, table: str) -> list[str]:
    """Certificates of a table that is there, or behind it, that are missing or lack their files."""
    if not graph.table(table).exists():
        return []
    behind = graph.ancestry([Artefact("tables", table)])
    return [str(graph.certificate(each)) for each in behind if not _whole(graph, each)]


def kept(graph: Graph) -> list[Artefact]:
    """Tables and figures that were made by name and stand on nothing but what tables need."""
    needed = set(graph.everything())
    return [
        each
        for each in on_disk(graph)
        if each.kind == "tables" or (each.kind == "figures" and set(graph.inputs(each)) <= needed)
    ]


def ready(graph: Graph) -> list[Artefact]:
    """Tables and figures of params.yaml all of whose inputs are as they would be made now."""
    shown = [Artefact("tables", name) for name in graph.params.tables]
    shown += [Artefact("figures", name) for name in graph.params.figures]
    return [each for each in shown if all(sound(graph, behind) for behind in graph.inputs(each))]


def check(graph: Graph) -> None:
    """Refusal when results/miou.csv, or what was kept beside it, is not what it should be now."""
    shown = dict.fromkeys([Artefact("tables", "miou"), *kept(graph)])
    wrong = [str(graph.certificate(a)) for a in graph.ancestry(shown) if not sound(graph, a)]
    if wrong:
        raise Refusal(
            "these are not what params.yaml and the package say now, whatever dvc.lock says "
            f"(dvc commit --force?): {' '.join(wrong)}. Put params.yaml back, or: snakemake, "
            "and then dvc repro."
        )


def below(graph: Graph, paths: list[Path]) -> list[Artefact]:
    """The artefacts at or below these paths, upstream first; Refusal where there is none."""
    places = {each: _place(graph, each).absolute() for each in on_disk(graph)}
    found = set()
    for path in paths:
        whole = path.absolute().parent if path.name == "digest" else path.absolute()
        chosen = {each for each, place in places.items() if place.is_relative_to(whole)}
        if not chosen:
            raise Refusal(f"{path} holds no artefact that params.yaml can name at its scale.")
        found |= chosen
    return [each for each in graph.ancestry(places) if each in found]


def vouch(graph: Graph, artefacts: list[Artefact], other_code: bool) -> None:
    """Check that artefacts are what today's settings make of what lies there, byte by byte.

    Refusal when settings, inputs or bytes are others. With `other_code` a person answers for a
    change of code: the certificate then says today's code, and as `vouched` the one that made it.
    """
    for artefact in artefacts:
        _vouch(graph, artefact, other_code)
    for artefact in graph.ancestry(artefacts):
        if not sound(graph, artefact):
            path = graph.certificate(artefact)
            raise Refusal(f"what these were made from is not as it should be: snakemake {path}")


def _vouch(graph: Graph, artefact: Artefact, other_code: bool) -> None:
    path = graph.certificate(artefact)
    said, (settings, code) = certificates.read(path), graph.promise(artefact)
    if said["settings"] != settings:
        raise Refusal(
            f"{path} was made with other settings than params.yaml says now, and nobody can vouch "
            f"for that: put the settings back, or have it made anew: rm {path}"
        )
    found = certificates.digest_files(*_files(graph, artefact))
    if found != said["content"]:
        raise Refusal(
            f"{path} certifies the content {said['content']}, but its files hold {found}: fetch "
            f"them again (dvc checkout) or have them made anew: rm {path}"
        )
    if outdated(graph, artefact):
        raise Refusal(
            f"{path} was made from other inputs than lie there now: have it made anew: rm {path}"
        )
    if said["code"] != code and not other_code:
        raise Refusal(
            f"{path} was made by other code than the package's: have it made anew: rm {path} - or, "
            f"if you know that the change alters no result: madan vouch --code {path}"
        )
    if said["code"] != code:
        line = json.loads(path.read_text())
        line |= {"code": code, "vouched": line.get("vouched", line["code"])}
        certificates.write_whole(path, json.dumps(line) + "\n")


def _whole(graph: Graph, artefact: Artefact) -> bool:
    """Whether certificate and as many files as it counted are there (their bytes are not read)."""
    path = graph.certificate(artefact)
    if not path.exists():
        return False
    certificates.read(path)
    files, _ = _files(graph, artefact)
    return json.loads(path.read_text()).get("files", len(files)) == len(files)


def _files(graph: Graph, artefact: Artefact) -> tuple[list[Path], Path]:
    if artefact.kind == "tables":
        pages = graph.pages(artefact.name).values()
        return [page for page in pages if page.exists()], graph.table(artefact.name).parent
    folder = graph.folder(artefact)
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if path != folder / "digest"], folder


def _place(graph: Graph, artefact: Artefact) -> Path:
    return graph.certificate(artefact) if artefact.kind == "tables" else graph.folder(artefact)


def _nameable(graph: Graph) -> Iterator[Artefact]:
    params, splits = graph.params, layouts.SPLITS
    datasets = [name for name, domain in params.domains.items() if not domain.union]
    if params.scale == "miniature":
        yield from (Artefact("miniature", name) for name in datasets)
    for name in datasets:
        for split in splits:
            yield Artefact("verified", f"{name}/{split}")
            yield from graph.prepared(name, split)
    firsts = {params.seeds_of(table)[0] for table in params.tables}
    for seed in params.every_seed:
        for run, settings in params.translators.items():
            yield Artefact("translators", run, seed)
            for shown in [run, *(f"{run}@{step}" for step in settings.keep)]:
                for source in settings.sources:
                    yield Artefact("stylised", f"{shown}/{source}", seed)
                    yield Artefact("releases", f"{shown}/{source}", seed)
        for run in params.released:
            for name in params.domains:
                yield Artefact("stylised", f"{run}/{name}", seed)
        scored = [
            f"translators/{run}" for run in params.translators if params.translators[run].task
        ]
        for kind in ("segmenters", "adaptations", "released"):
            for run in getattr(params, kind):
                address = f"{kind}/{run}"
                if kind != "released" or seed in firsts:
                    yield graph.run(address, seed)
                    scored.append(address)
        for run in scored:
            for name in datasets:
                for split in splits:
                    yield Artefact("scores", f"{run}/{name}-{split}", seed)
                    yield Artefact("predictions", f"{run}/{name}-{split}", seed)
    yield from (Artefact("figures", name) for name in params.figures)
    yield from (Artefact("tables", name) for name in params.tables)

"""Which artefacts are current, and why others are not.

An artefact is current if its certificate promises today's settings and code, its files are there,
its inputs have the content that it was made from, and all its inputs are current.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from madan.errors import Refusal
from madan.pipeline import artefacts, checks, contents, raw
from madan.pipeline.artefacts import Artefact
from madan.pipeline.certificates import Certificate, Inputs, read
from madan.pipeline.graph import Graph
from madan.pipeline.settings import changes

# Their bytes are compared, even if this machine never saw them.
SMALL = (artefacts.Table, artefacts.Figure, artefacts.Score)
NAMED = 3  # examples in a message
MISSING = "missing"  # the content of an input without a certificate


class Reason(NamedTuple):
    """Why an artefact is not current: one of the words below, and a text for people."""

    why: str  # missing, settings, code, files, inputs, follows
    text: str


class Staleness:
    """What is current of one graph; each artefact is looked at once."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self._reasons: dict[Artefact, Reason | None] = {}

    def is_current(self, artefact: Artefact) -> bool:
        """Return whether an artefact is as it would be made now."""
        return self.reason(artefact) is None

    def reason(self, artefact: Artefact) -> Reason | None:
        """Return why an artefact is not current, None if it is."""
        if artefact not in self._reasons:
            inputs = self.graph.inputs(artefact)
            follows = _follows(inputs, [self.reason(other) for other in inputs])
            found = self.own_reason(artefact)
            made = found is None or found.why != "missing"
            # The settings of a table hold the history of its rows, which says less than `follows`.
            first = follows if made and isinstance(artefact, artefacts.Table) else None
            self._reasons[artefact] = first or found or follows
        return self._reasons[artefact]

    def own_reason(self, artefact: Artefact) -> Reason | None:
        """Return why an artefact is not current, whatever its inputs are."""
        graph, path = self.graph, self.graph.certificate(artefact)
        certificate = read(path)
        if certificate is None:
            if path.exists():
                return Reason("missing", f"{path} cannot be read")
            without = bool(artefact.files(graph.params))
            return Reason("missing", f"{path} is missing" if without else "it is not made yet")
        if certificate.artefact != str(artefact):
            return Reason("files", f"{path} is the certificate of {certificate.artefact}")
        settings = graph.settings(artefact)
        if certificate.settings != settings:
            return Reason("settings", _changed(certificate.settings, settings))
        code = graph.code(artefact)
        if certificate.code != code:
            names = sorted(certificate.code.items() ^ code.items())
            changed = dict.fromkeys(f"{name.replace('.', '/')}.py" for name, _ in names)
            return Reason("code", f"{', '.join(changed)} changed")
        if missing := _damage(graph, artefact, certificate):
            return Reason("files", missing)
        reason = _other_inputs(certificate, input_contents(graph, artefact))
        if reason and isinstance(artefact, artefacts.Verified):
            files = raw.changed(f"{graph.params.scale}/{artefact.name}")
            return (
                Reason("inputs", f"{_some(files)} changed since it was verified")
                if files
                else reason
            )
        return reason


def input_contents(graph: Graph, artefact: Artefact) -> Inputs:
    """Return the content of each input of an artefact, by role, name and address.

    An input without a certificate has the content MISSING.
    """
    found: Inputs = {}
    for role, by_name in graph.roles(artefact).items():
        for name, inputs in by_name.items():
            for other in inputs:
                certificate = read(graph.certificate(other))
                content = certificate.content if certificate else MISSING
                found.setdefault(role, {}).setdefault(name, {})[str(other)] = content
    if isinstance(artefact, artefacts.Verified) and not found:
        dataset = graph.params.dataset(artefact.domain)
        where = f"{graph.params.scale}/{artefact.name}"
        stored = read(graph.certificate(artefact))
        if stored and not dataset.root.exists():
            return stored.inputs  # What was verified counts where the raw files are gone.
        return {"raw": {artefact.domain: {str(dataset.root): raw.content(dataset, where)}}}
    return found


def on_disk(graph: Graph) -> list[Artefact]:
    """Return the artefacts with files on disk that params.yaml can name, inputs first."""
    existing = set()
    for artefact in artefacts.on_disk(graph.params):
        with contextlib.suppress(Refusal):
            checks.check(artefact, graph.params)
            existing.add(artefact)
    return [each for each in graph.ancestry(existing) if each in existing]


def outdated(staleness: Staleness) -> dict[Artefact, Reason]:
    """Return the artefacts on disk that are not current, inputs first, each with its reason."""
    reasons = {each: staleness.reason(each) for each in on_disk(staleness.graph)}
    return {artefact: reason for artefact, reason in reasons.items() if reason}


def summary(found: dict[Artefact, Reason]) -> str:
    """Say how many artefacts on disk are made anew when a target needs them, and why."""
    groups: dict[str, list[Artefact]] = {}
    for artefact, reason in found.items():
        follows = reason.why == "follows"
        groups.setdefault("they are made from these" if follows else reason.text, []).append(
            artefact
        )
    lines = [f"madan: {len(found)} results are out of date and are made anew if they are needed:"]
    for text, members in groups.items():
        lines.append(f"  {len(members)} because {text} ({_some(members)})")
    return "\n".join(lines)


def made_by_name(graph: Graph) -> list[Artefact]:
    """Return the tables and figures on disk that need nothing but what the tables need."""
    needed = set(graph.everything())
    return [
        each
        for each in on_disk(graph)
        if isinstance(each, artefacts.Table)
        or (isinstance(each, artefacts.Figure) and set(graph.inputs(each)) <= needed)
    ]


def ready(staleness: Staleness) -> list[Artefact]:
    """Return the tables and figures of params.yaml all of whose inputs are current."""
    graph, current = staleness.graph, staleness.is_current
    shown: list[Artefact] = [artefacts.Table(name) for name in graph.params.tables]
    shown += [artefacts.Figure(name) for name in graph.params.figures]
    return [each for each in shown if all(current(other) for other in graph.inputs(each))]


def check(graph: Graph) -> None:
    """Refuse if results/miou.csv, or a table or figure made by name, is not current."""
    staleness = Staleness(graph)
    shown = dict.fromkeys([artefacts.Table("miou"), *made_by_name(graph)])
    reasons = {each: staleness.reason(each) for each in graph.ancestry(shown)}
    wrong = {each: reason for each, reason in reasons.items() if reason}
    if wrong:
        raise Refusal(f"{summary(wrong).removeprefix('madan: ')}\nRun snakemake, or dvc repro.")


def _follows(inputs: list[Artefact], reasons: list[Reason | None]) -> Reason | None:
    """The reason of an artefact whose inputs are not all current."""
    for other, reason in zip(inputs, reasons, strict=True):
        if reason:
            if reason.why == "follows":
                return reason  # The first cause says most.
            text = "is missing" if reason.why == "missing" else f"is out of date: {reason.text}"
            return Reason("follows", f"{other} {text}")
    return None


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Which settings changed; of the history of a table's rows only that it changed."""
    texts = changes(before, now)
    shown = [text for text in texts if not text.startswith("rows.")]
    return "; ".join(shown or ["settings or code behind its rows changed"])


def _damage(graph: Graph, artefact: Artefact, certificate: Certificate) -> str:
    """What is wrong with the files of an artefact: their number, or their bytes."""
    files, folder = artefact.files(graph.params), graph.folder(artefact)
    if len(files) != certificate.files:
        return f"{len(files)} files are in {folder}, {certificate.files} were made"
    small = isinstance(artefact, SMALL)
    changed = contents.damaged(artefact, graph.params, certificate, unseen=small)
    if not changed:
        return ""
    whole = len(changed) == len(files) and not isinstance(artefact, artefacts.Table)
    shown = f"a file in {folder}" if whole else _some(changed)
    return f"{shown} changed since the certificate was written"


def _other_inputs(certificate: Certificate, now: Inputs) -> Reason | None:
    """The reason of an artefact that was made from other inputs than those that exist today."""
    before, after = _flat(certificate.inputs), _flat(now)
    gone = {key for key in after.items() if key[1] == MISSING}
    names = dict.fromkeys(key[-1] for key, _ in sorted((before.items() ^ after.items()) - gone))
    missing = {key[-1] for key, _ in gone}
    if not names.keys() - missing:
        return None
    return Reason("inputs", f"it was made from another content of {_some([*names])}")


def _some(names: Sequence[object]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


def _flat(inputs: Inputs) -> dict[tuple[str, str, str], str]:
    """The content of each input by role, name and address."""
    return {
        (role, name, address): content
        for role, by_name in inputs.items()
        for name, by_address in by_name.items()
        for address, content in by_address.items()
    }

"""The graph of one params.yaml: its artefacts with their folders, inputs, settings and code."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from madan.config.loading import digest
from madan.config.schema import Figure, Params
from madan.pipeline import artefacts, code, edges, settings
from madan.pipeline.artefacts import Artefact
from madan.pipeline.certificates import plain

# The module that makes each kind of artefact: the root of its code digest.
JOBS = {
    artefacts.Drawn: "pipeline.jobs.miniature",
    artefacts.Verified: "pipeline.jobs.verify",
    artefacts.Prepared: "pipeline.jobs.prepare",
    artefacts.Imported: "pipeline.jobs.import_weights",
    artefacts.Translator: "pipeline.jobs.translate",
    artefacts.Stylised: "pipeline.jobs.stylise",
    artefacts.Segmenter: "pipeline.jobs.segment",
    artefacts.Adaptation: "pipeline.jobs.adapt",
    artefacts.Score: "pipeline.jobs.evaluate",
    artefacts.Table: "pipeline.jobs.table",
    artefacts.Figure: "pipeline.jobs.figure",
    artefacts.Release: "pipeline.jobs.release",
    artefacts.Predictions: "pipeline.jobs.predictions",
}


class Graph:
    """The artefacts of one params.yaml; answers are computed once."""

    def __init__(self, params: Params, package: Path = Path(__file__).parents[1]):
        self.params = params
        self.package = package
        self._roles: dict[Artefact, dict[str, edges.Role]] = {}
        self._settings: dict[Artefact, dict[str, Any]] = {}
        self._code: dict[type[Artefact], dict[str, str]] = {}
        self._chains: dict[Artefact, tuple[str, str]] = {}
        self._following: dict[Artefact, int] = {}

    def folder(self, artefact: Artefact) -> Path:
        """Return where an artefact lies, relative to the project's folder."""
        return artefact.folder(self.params)

    def certificate(self, artefact: Artefact) -> Path:
        """Return the path of an artefact's certificate."""
        return artefact.certificate(self.params)

    def roles(self, artefact: Artefact) -> dict[str, edges.Role]:
        """Return what an artefact is made from, by role and name."""
        if artefact not in self._roles:
            self._roles[artefact] = edges.roles(artefact, self.params)
        return self._roles[artefact]

    def inputs(self, artefact: Artefact) -> list[Artefact]:
        """Return what an artefact is made from, each once."""
        by_role = self.roles(artefact).values()
        return list(dict.fromkeys(a for role in by_role for named in role.values() for a in named))

    def settings(self, artefact: Artefact) -> dict[str, Any]:
        """Return the settings that decide an artefact, as its certificate holds them."""
        if artefact not in self._settings:
            own = settings.settings(artefact, self.params)
            if isinstance(artefact, artefacts.Table):  # A table shows how its rows were made.
                own["rows"] = {str(each): self.chain(each) for each in self.inputs(artefact)}
            if isinstance(artefact, artefacts.Figure):
                figure = self.params.figures[artefact.figure]
                own["graph"] = self.behind(figure) if figure.shows == "graph" else None
            self._settings[artefact] = plain(own)
        return self._settings[artefact]

    def train_with(self, artefact: Artefact, processes: int) -> None:
        """Have the settings of a training run say by how many processes it is trained."""
        own = self.settings(artefact)
        self._settings[artefact] = settings.with_processes(own, processes)

    def code(self, artefact: Artefact) -> dict[str, str]:
        """Return the digests of the modules that make an artefact, by their names."""
        kind = type(artefact)
        if kind not in self._code:
            self._code[kind] = code.code(self.package, JOBS[kind])
        return self._code[kind]

    def planned(self, artefact: Artefact) -> str:
        """Return a digest of settings, code and edges, which a rule passes to its command."""
        edges = {
            role: {name: list(map(str, named)) for name, named in by_name.items()}
            for role, by_name in self.roles(artefact).items()
        }
        return digest([self.settings(artefact), self.code(artefact), edges])

    def chain(self, artefact: Artefact) -> tuple[str, str]:
        """Return digests of the settings and of the code of an artefact and all behind it."""
        if artefact not in self._chains:
            behind = [self.chain(other) for other in self.inputs(artefact)]
            self._chains[artefact] = (
                digest([self.settings(artefact), [each for each, _ in behind]]),
                digest([self.code(artefact), [each for _, each in behind]]),
            )
        return self._chains[artefact]

    def ancestry(self, chosen: Iterable[Artefact]) -> list[Artefact]:
        """Return artefacts and all that they are made from, inputs first, each once."""
        order: dict[Artefact, None] = {}

        def visit(artefact: Artefact) -> None:
            if artefact not in order:
                for other in self.inputs(artefact):
                    visit(other)
                order[artefact] = None

        for artefact in chosen:
            visit(artefact)
        return list(order)

    def behind(self, figure: Figure) -> dict[str, dict[str, str]]:
        """Return all that a figure's runs are made from, with their scores and table, inputs first.

        For every address the addresses of its inputs with their roles; shards and seeds are one.
        """
        ends = [e for run in figure.runs for e in edges.measured(self.params, figure, run)]
        found: dict[str, dict[str, str]] = {}
        for artefact in self.ancestry(ends or [artefacts.Table(figure.table)]):
            inputs = found.setdefault(_group(artefact), {})
            for role, by_name in self.roles(artefact).items():
                inputs |= {_group(other): role for named in by_name.values() for other in named}
        return found

    def everything(self) -> list[Artefact]:
        """Return all that the tables need, inputs first, each once."""
        return self.ancestry(artefacts.Table(table) for table in self.params.tables)

    def priority(self, artefact: Artefact) -> int:
        """Return the priority of a job: the number of artefacts that follow (`following`).

        What finds out that a split is missing or damaged comes before all else: domains that are
        drawn and splits that are verified, also those that are only scored on.
        """
        first = isinstance(artefact, artefacts.Drawn | artefacts.Verified)
        return self.following(artefact) + (len(self._following) if first else 0)

    def following(self, artefact: Artefact) -> int:
        """Return how many artefacts follow on the longest path from this one to a table."""
        if not self._following:
            order = self.everything()
            self._following = dict.fromkeys(order, 0)
            for later in reversed(order):
                for other in self.inputs(later):
                    further = self._following[later] + 1
                    self._following[other] = max(self._following[other], further)
        return self._following.get(artefact, 0)


def _group(artefact: Artefact) -> str:
    """The address, of a shard without its number."""
    shard = isinstance(artefact, artefacts.Prepared)
    return artefact.address.rpartition("/")[0] if shard else artefact.address

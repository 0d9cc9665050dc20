"""A job: it checks its inputs, makes an artefact, certifies it and moves it to its place."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from madan import config, outputs
from madan.config.loading import digest
from madan.errors import Refusal
from madan.files import (
    digest_files,
    locked,
    not_in_the_future,
    real_place,
    remove,
    replace_folder,
    write_whole,
)
from madan.pipeline import artefacts, certificates, checks, contents
from madan.pipeline.artefacts import Artefact
from madan.pipeline.certificates import Certificate, Inputs
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Reason, Staleness, input_contents, on_disk, outdated
from madan.shortages import naming

REBUILD = Path("state/rebuild.json")  # What the last plan of Snakemake found out of date.


Made = TypeVar("Made", bound=Artefact, covariant=True)


class Job(Generic[Made]):
    """The making of one artefact of a graph."""

    def __init__(self, graph: Graph, artefact: Made):
        self.graph = graph
        self.params = graph.params
        self.artefact = artefact
        self.roles = graph.roles(artefact)
        self._read: Inputs | None = None

    def folder(self, other: Artefact) -> Path:
        """Return where an input of the job lies."""
        return self.graph.folder(other)

    @property
    def inputs(self) -> Inputs:
        """The content of each input, by role, name and address."""
        return input_contents(self.graph, self.artefact)

    @property
    def key(self) -> str:
        """A digest of all that decides the artefact: settings, code and the content of inputs."""
        return digest([self.graph.planned(self.artefact), self.inputs])

    @property
    def digests(self) -> dict[str, str]:
        """Digests of settings and code of the artefact, and of the content of its inputs."""
        settings, code = self.graph.settings(self.artefact), self.graph.code(self.artefact)
        return {"settings": digest(settings), "code": digest(code), "inputs": digest(self.inputs)}

    @contextlib.contextmanager
    def publish(self, only: Iterable[str] = ()) -> Iterator[Path]:
        """Give a temporary folder that becomes the artefact, certified, if the block ends well.

        Refusal if another process is making it, such as one that a killed Snakemake left behind;
        with `only`, if the folder that is replaced holds other files than these and those that its
        SHA256SUMS names.
        """
        folder = self.folder(self.artefact)
        if only:
            outputs.require_own(folder, ("certificate.json", *only))
        place = real_place(folder)
        fresh = place.with_name(f".{place.name}.new")
        with self.alone(folder):
            remove(fresh)
            fresh.mkdir(parents=True)
            try:
                with naming(folder):
                    yield fresh
                files = sorted(path for path in fresh.rglob("*") if path.is_file())
                certificate = self.certificate(files, fresh)
                certificates.write(fresh / "certificate.json", certificate)
                replace_folder(fresh, place)
                contents.remember(self.artefact, self.params, certificate)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self, path: Path) -> Iterator[None]:
        """Hold the lock of what this job makes; Refusal if another process makes it."""
        with locked(path):
            # Raw files have no certificate: what was read of them is known only at the end.
            self._read = self.inputs if self.graph.inputs(self.artefact) else None
            yield

    def certificate(self, files: Iterable[Path], folder: Path) -> Certificate:
        """Return the certificate of the artefact whose files, in a folder, are these.

        Refusal if an input was made anew meanwhile, such as by another clone that shares it.
        """
        graph, artefact, files = self.graph, self.artefact, list(files)
        inputs = self.inputs
        if self._read not in (None, inputs):
            raise Refusal(
                f"inputs of {artefact} were made anew while it was made; nothing was published. "
                "Run the command again."
            )
        content = digest_files(files, folder)
        behind = {_data(graph, other) for other in graph.inputs(artefact)}
        is_data = isinstance(artefact, DATA)
        return Certificate(
            artefact=str(artefact),
            content=content,
            files=len(files),
            settings=graph.settings(artefact),
            code=graph.code(artefact),
            inputs=inputs,
            data=content if is_data else digest(sorted(behind)),
        )


DATA = (artefacts.Drawn, artefacts.Verified, artefacts.Prepared, artefacts.Imported)


def open_job(
    address: str, seed: int | None, planned: str | None, processes: int | None = None
) -> Job | None:
    """Load params.yaml and return the job that makes an artefact, after checking its inputs.

    With `planned`, the digest that Snakemake passes: Refusal if settings or code changed since, and
    None if the artefact was out of date at that time and is current by now, because its inputs came
    out with the content that it was made from. `processes` train it, else as many as params.yaml
    says.
    """
    graph = Graph(config.load())
    artefact = artefacts.parse(address, graph.params.seeds[0] if seed is None else seed)
    checks.check(artefact, graph.params)
    if processes is not None:
        graph.train_with(artefact, processes)
    if planned and planned != graph.planned(artefact):
        raise Refusal(
            f"params.yaml or the code changed since {artefact} was planned; nothing was made. "
            "Run snakemake again to plan with what is there now."
        )
    staleness = Staleness(graph)
    if planned and str(artefact) in read_rebuild() and staleness.is_current(artefact):
        print(f"{artefact} is current: its inputs have the content that it was made from")
        return None
    for other in graph.inputs(artefact):
        if reason := staleness.reason(other):
            path = graph.certificate(other)
            raise Refusal(f"{other} is not current: {reason.text}. Make it: snakemake {path}")
        verify(graph, other)
    return Job(graph, artefact)


def write_rebuild(staleness: Staleness) -> dict[Artefact, Reason]:
    """Write which artefacts on disk are out of date, and return them with their reasons.

    If there are any, the file is newer than them and has another content each time.
    """
    found = outdated(staleness)
    for artefact in on_disk(staleness.graph):
        not_in_the_future(staleness.graph.certificate(artefact))
    if found or read_rebuild() or not REBUILD.exists():
        names = [str(artefact) for artefact in found]
        stored = {"planned": time.time_ns(), "outdated": names}
        write_whole(REBUILD, json.dumps(stored, indent=1) + "\n")
    return found


def read_rebuild() -> list[str]:
    """Return the artefacts that were out of date when Snakemake last planned."""
    try:
        return list(json.loads(REBUILD.read_text())["outdated"])
    except (OSError, ValueError, TypeError, KeyError):
        return []


def verify(graph: Graph, artefact: Artefact) -> None:
    """Refuse an artefact whose files are not those that its certificate was written for."""
    params, path = graph.params, graph.certificate(artefact)
    certificate = certificates.read(path)
    with contents.one_reader(artefact, params):
        if certificate and not contents.damaged(artefact, params, certificate, unseen=True):
            return
    raise Refusal(
        f"{graph.folder(artefact)} is damaged: its files are not those for which its certificate, "
        f"{path}, was written; delete {path} and run again, and it is made anew."
    )


def _data(graph: Graph, artefact: Artefact) -> str:
    certificate = certificates.read(graph.certificate(artefact))
    return certificate.data if certificate else ""

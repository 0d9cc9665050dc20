# The graph behind the rules: the package says what is made from what, and under which settings.
import os
import signal
import sys

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.persistence.file import FilePersistence

# The package beside the Snakefile is what runs, whichever one is installed.
sys.path.insert(0, str(workflow.basedir))
path = [str(workflow.basedir), os.environ.get("PYTHONPATH")]
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, path)))

from madan import guard
from madan.graph import Artefact, Graph
from madan.config import load
from madan.schema import Refusal
from madan.layouts import wanted

if config:
    raise WorkflowError(
        "--config is not read: write it into params.yaml, which alone configures."
    )
try:
    GRAPH = Graph(load())
    RECORDED = FilePersistence(nolock=True)
    if not workflow.remote_exec:
        guard.refuse_strangers(GRAPH, lambda path: RECORDED.params(IOFile(str(path))))
except Refusal as refusal:
    raise WorkflowError(str(refusal))

if workflow.remote_exec:
    # A scheduler's warning goes to every process of a job: it is madan's to save and leave.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


# With more --cores than the machine has, jobs would only wait for each other in its caches.
SHARE = max(
    GRAPH.params.training.threads,
    (workflow.resource_settings.cores or 1) // len(os.sched_getaffinity(0)),
)

# A profile's `gres_name` says what GPUs are called where only --gres=NAME:N is accepted.
DEFAULTS = workflow.resource_settings.default_resources or {}
GRES = DEFAULTS["gres_name"].raw if "gres_name" in DEFAULTS else None


def cpus(rule):
    return getattr(GRAPH.params.resources, rule).cpus or SHARE


def asks(rule):
    wanted = GRAPH.params.resources
    need, longest = getattr(wanted, rule), wanted.longest

    def runtime(wildcards, attempt):
        return min(need.minutes * attempt, longest or need.minutes * attempt)

    gpus = {"gres": f"{GRES}:{need.gpus}"} if GRES and need.gpus else {"gpu": need.gpus}
    return {"mem_mb": need.mem_mb, "runtime": runtime, **gpus}


def node(kind, name, wildcards):
    artefact = Artefact(kind, name.format(**wildcards), int(wildcards.get("seed", 0)))
    try:
        GRAPH.check(artefact)
    except Refusal as refusal:
        # As an exception it would drown in Snakemake's own lines.
        sys.exit(f"madan: {refusal}")
    return artefact


def needed(kind, name):
    def certificates(wildcards):
        artefact = node(kind, name, wildcards)
        mine = str(GRAPH.certificate(artefact))
        paths = [str(GRAPH.certificate(other)) for other in GRAPH.inputs(artefact)]
        if guard.outdated(GRAPH, artefact):
            workflow.dag.forcefiles.add(mine)
        # Without a record Snakemake goes by times, which a checkout leaves in any order.
        elif RECORDED.params(IOFile(mine)) is None and guard.sound(GRAPH, artefact):
            return [ancient(path) for path in paths]
        return paths

    return certificates


def needed_by_table(name):
    def certificates(wildcards):
        table = node("tables", name, wildcards)
        # Snakemake lets alone what is missing between two files that exist.
        workflow.dag.forcefiles.update(guard.gone(GRAPH, table.name))
        return needed("tables", name)(wildcards)

    return certificates


def tell_missing():
    lines = [wanted(name, GRAPH.params.dataset(name)) for name in GRAPH.absent()]
    lines += [
        f"{name}: {file}, released weights"
        for name, file in GRAPH.absent_weights().items()
    ]
    sys.exit(
        "madan: these are missing; put them, or links, where params.yaml says:\n  "
        + "\n  ".join(lines)
        + "\n(docs/data.md has more; `scale: miniature` needs no download.)"
    )


def raw(wildcards):
    if wildcards.domain in GRAPH.absent():
        tell_missing()
    return needed("verified", "{domain}/{split}")(wildcards)


def weights(wildcards):
    if wildcards.run in GRAPH.absent_weights():
        tell_missing()
    return needed("released", "{run}")(wildcards)


def planned(kind, name):
    return lambda wildcards: GRAPH.planned(node(kind, name, wildcards))


def priority(kind, name):
    return lambda wildcards: GRAPH.priority(node(kind, name, wildcards))


def shows(wildcards):
    return GRAPH.params.figures[wildcards.run].shows

# The graph behind the rules: the package defines the inputs of each artefact and which are current.
import os
import signal
import sys
from pathlib import Path

# Jobs run the package beside the Snakefile, even if another one is installed.
sys.path.insert(0, str(workflow.basedir))
package_path = [str(workflow.basedir), os.environ.get("PYTHONPATH")]
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, package_path)))

from madan.config import load
from madan.data.layouts import wanted
from madan.errors import Refusal
from madan.files import hold
from madan.pipeline import artefacts, checks, publishing, shares, staleness
from madan.pipeline import settings as run_settings
from madan.pipeline.graph import Graph

if config:
    sys.exit("madan: --config is not read: write it into params.yaml instead.")
try:
    GRAPH = Graph(load())
    STALENESS = staleness.Staleness(GRAPH)
    if OUTDATED := publishing.write_rebuild(STALENESS):
        print(staleness.summary(OUTDATED), file=sys.stderr)
except Refusal as refusal:
    sys.exit(f"madan: {refusal}")

# A scheduler warns every process of a job with this signal. madan saves its state and ends.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def total_cores():
    """Return the value of --cores; on a cluster it does not exist, and reading it is an error."""
    try:
        return workflow.cores
    except Exception:
        return 1


# More training jobs than cores of the machine would only slow each other down.
THREADS = max(
    GRAPH.params.training.threads,
    total_cores() // len(os.sched_getaffinity(0)),
)
# The resources of this machine. profiles/default limits the shares that jobs take.
MEMORY_MB, GPU_PLACES = shares.memory_mb(), shares.gpu_places()
RUNS = {"translate": "translators", "segment": "segmenters", "adapt": "adaptations"}
ON_GPU = "translate stylise segment adapt evaluate release predictions".split()


HELD = []  # An open file keeps its lock.


def be_alone():
    """Lock the folder until this process ends; exit if another process holds the lock."""
    busy = "another snakemake is at work in this folder: wait until it is done, or stop it."
    try:
        HELD.append(hold(Path("state/snakemake.lock"), busy))
    except Refusal as refusal:
        sys.exit(f"madan: {refusal}")


def cpus(rule):
    return getattr(GRAPH.params.resources, rule).cpus or THREADS


def asks(rule, run=None):
    """Return the resources of a rule's jobs; a training run can have its own number of GPUs."""
    wanted = GRAPH.params.resources
    need, longest, gres = getattr(wanted, rule), wanted.longest, wanted.gres
    runs = getattr(GRAPH.params, RUNS.get(rule, ""), {})

    def runtime(wildcards, attempt):
        return min(need.minutes * attempt, longest or need.minutes * attempt)

    def gpus(wildcards):
        return (
            run_settings.gpus(run.artefact(wildcards), GRAPH.params)
            if run
            else need.gpus
        )

    def gpus_of_machine(wildcards):
        return shares.gpu_share(gpus(wildcards), GPU_PLACES)

    asked = {"gpu": gpus}
    if gres and (need.gpus or any(each.gpus for each in runs.values())):
        asked = {"gres": lambda wildcards: f"{gres}:{gpus(wildcards)}"}
    asked["memory_share"] = shares.memory_share(need.mem_mb, MEMORY_MB)
    asked["gpu_share"] = gpus_of_machine if rule in ON_GPU else 0
    return {"mem_mb": need.mem_mb, "runtime": runtime, **asked}


class Made:
    """The artefact of a rule, by the address that its wildcards complete."""

    def __init__(self, address):
        self.address = address

    def artefact(self, wildcards):
        try:
            seed = int(wildcards.get("seed", 0))
            made = artefacts.parse(self.address.format(**wildcards), seed)
            checks.check(made, GRAPH.params)
        except Refusal as refusal:
            sys.exit(f"madan: {refusal}")
        return made

    def rebuild(self, wildcards):
        """Return a file newer than every artefact that is out of date; its time has no other use."""
        path = str(publishing.REBUILD)
        return path if self.artefact(wildcards) in OUTDATED else ancient(path)

    def role(self, name):
        """Return the certificates of the inputs with a role."""

        def paths(wildcards):
            made = self.artefact(wildcards)
            inputs = GRAPH.roles(made)[name].values()
            found = dict.fromkeys(certificates(m for named in inputs for m in named))
            # Times are ignored for current artefacts. Other artefacts must be newer than their inputs.
            return (
                list(map(ancient, found)) if STALENESS.is_current(made) else list(found)
            )

        return paths

    def raw(self, wildcards):
        """Return the drawn images of a domain; for a real domain return none, but require its folder."""
        absent = stop_if_absent(wildcards.domain, absent_datasets)
        return absent or self.role("raw")(wildcards)

    def absent(self, wildcards):
        """Return no file, but require the file of released weights."""
        return stop_if_absent(wildcards.imported, absent_weights)

    def planned(self, wildcards):
        return GRAPH.planned(self.artefact(wildcards))

    def priority(self, wildcards):
        return GRAPH.priority(self.artefact(wildcards))


def certificates(chosen):
    return [str(GRAPH.certificate(artefact)) for artefact in chosen]


def needed():
    """Return all artefacts that the requested targets need."""
    requested = [artefacts.at(path, GRAPH.params) for path in requested_files()]
    return GRAPH.ancestry(filter(None, requested)) or GRAPH.everything()


def absent_datasets():
    """Return the needed datasets that are not read yet and have no folder."""
    verified = [made for made in needed() if isinstance(made, artefacts.Verified)]
    unread = [
        made.domain
        for made in verified
        if not GRAPH.inputs(made) and not GRAPH.certificate(made).exists()
    ]
    return [
        name
        for name in dict.fromkeys(unread)
        if not GRAPH.params.dataset(name).root.exists()
    ]


def absent_weights():
    """Return the needed released weights that are not imported yet, with their files."""
    imported = [made for made in needed() if isinstance(made, artefacts.Imported)]
    absent = [made for made in imported if GRAPH.settings(made)["content"] == "missing"]
    return {made.run: GRAPH.params.released[made.run].file for made in absent}


def stop_if_absent(name, absent):
    """Exit before any job starts if raw data of this name is missing, and list all missing data."""
    if name not in absent():
        return []
    lines = [wanted(each, GRAPH.params.dataset(each)) for each in absent_datasets()]
    lines += [
        f"{each}: {file}, released weights" for each, file in absent_weights().items()
    ]
    sys.exit(
        "madan: these are missing; put them, or links, where params.yaml says:\n  "
        + "\n  ".join(lines)
        + "\n(docs/data.md has more; `scale: miniature` needs no download.)"
    )


def stop_if_out_of_date():
    """End with an error if what was asked for is not current yet."""
    current = staleness.Staleness(GRAPH).is_current
    left = [made for made in needed() if not current(made)]
    if left:
        sys.exit(
            f"madan: results are still out of date ({len(left)}, such as {left[0]}), because "
            "--forcerun hides them from Snakemake. Run the same command without --forcerun."
        )


CATEGORIES = {
    "heatmap": "Tables",
    "translation": "Translation",
    "training": "Training",
    "discriminators": "Training",
    "shares": "Data",
}


def shows(wildcards):
    return GRAPH.params.figures[wildcards.figure].shows


def category(wildcards):
    return CATEGORIES.get(shows(wildcards), "Segmentation")

"""Start-up of commands, and two jobs of one thread against one of two.

Start-ups have no baseline: theirs is the time that is allowed.
"""

import subprocess
import sys
from collections.abc import Iterator

from pairs import Row, row, took

ALLOWED = {
    "start-help": (1.0, "madan --help, which needs no torch",
                   [sys.executable, "-m", "madan.cli", "--help"]),
    "start-graph": (
        3.0, "the graph of params.yaml, planned and checked against what lies on disk",
        [sys.executable, "-c", "from madan import config, graph; g = graph.Graph(config.load()); "
         "[g.planned(a) for a in g.everything()]"],
    ),
    "start-snakemake": (
        5.0, "snakemake --dry-run, as it lies; of a finished run it is the no-op",
        [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "--cores", "1"],
    ),
}  # fmt: skip
STEPS = 6
# Seconds of so many steps of the miniature's segmenter, without start-up.
CODE = """
import sys, time, torch
sys.path.insert(0, "benchmarks")
import growth
threads, steps = int(sys.argv[1]), int(sys.argv[2])
method = growth.segmenter(8)
torch.set_num_threads(threads)
method.update(0)
begun = time.perf_counter()
for step in range(steps):
    method.update(step)
print(time.perf_counter() - begun)
"""


def rows(rounds: int) -> Iterator[Row]:
    """start-help, start-graph, start-snakemake and two-jobs."""
    for name, (allowed, what, command) in ALLOWED.items():
        run = lambda c=command: subprocess.run(c, check=True, capture_output=True)  # noqa: E731
        run()
        yield row(name, [(allowed, took(run)) for _ in range(rounds)], 0.0, f"{what}; allowed")
    what = f"{2 * STEPS} steps of the miniature's F: one process of two threads, then two of one"
    yield row("two-jobs", [(_together(1), _together(2)) for _ in range(2)], 0.0, what)


def _together(jobs: int) -> float:
    """Seconds of the slowest of so many processes, which share two threads and the steps."""
    threads, steps = str(2 // jobs), str(2 * STEPS // jobs)
    command = [sys.executable, "-c", CODE, threads, steps]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(jobs)]
    return max(float(job.communicate()[0]) for job in running)

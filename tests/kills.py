"""Kill whole runs at random moments and compare what they end with: python tests/kills.py --help

Snakemake, or DVC above it, is started as a process group of its own in a tiny world that is really
trained. The whole group is killed at a random moment and the command is given again, by turns until
it ends. Every file of its results and its data must equal that of a run that nobody disturbed.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import quick
from conftest import Repository, params_yaml, processes, tiny

DOORS = {"snakemake": ("snakemake", "--cores", "2"), "dvc": ("dvc", "repro")}
PLACES = ("results", "data", "state", "logs", ".snakemake")
ROW = "cyclegan-gta5"
NO_RULE = "between jobs"


class Kill(NamedTuple):
    """One kill: which command was running, by which signal, and in which rules it struck."""

    door: str
    signal: str
    rules: str


class Outcome(NamedTuple):
    """All kills, how many runs were finished, and what was wrong: one line for each fault."""

    kills: list[Kill]
    finished: int
    faults: list[str]


def world(root: Path, steps: int = 20, row: str = ROW) -> Repository:
    """Make a repository whose table has one row, trained for some steps, in a new folder.

    Its commands are forked from a server, so that they start at once; they stay in the process
    group of who called them.
    """
    root.mkdir(parents=True)
    params = tiny(params_yaml(), (row,))
    for section in ("segmenter", "translator", "adaptation"):
        params["training"][section]["steps"] = steps
    made = Repository(root, params, stand_in=False)
    made.env[quick.GROUP] = "1"
    return made


def contents(repository: Repository) -> dict[str, bytes]:
    """Return the bytes of every file below results and data; locks are left out."""
    files = (path for name in PLACES[:2] for path in (repository.root / name).rglob("*"))
    return {
        str(path.relative_to(repository.root)): path.read_bytes()
        for path in files
        if path.is_file() and not (path.name.startswith(".") and path.suffix == ".lock")
    }


def kill_often(
    repository: Repository, whole: dict[str, bytes], kills: int, seed: int, longest: float,
    until: float = float("inf"),
) -> Outcome:  # fmt: skip
    """Run the repository again and again with so many kills; `longest` seconds before each."""
    rng, done, finished = random.Random(seed), list[Kill](), 0
    faults: list[str] = []
    while len(done) < kills and time.monotonic() < until:
        for name in PLACES:
            shutil.rmtree(repository.root / name, ignore_errors=True)
        refused = 0
        while True:
            door = rng.choice(list(DOORS))
            harm = len(done) < kills and time.monotonic() < until
            code, kill = _attempt(repository, door, rng if harm else None, longest)
            if kill:
                done.append(kill)
                print(f"{len(done)}: {kill.door} {kill.signal} in {kill.rules}", flush=True)
            if code == 0 and not kill:
                break
            if not kill:
                refused += 1
                said = (repository.root / "said").read_text().strip()
                faults.append(f"{door} ended with {code} after {done[-1:]}: ...{said[-1500:]}")
            if refused > 2:
                return Outcome(done, finished, faults)
        finished += 1
        faults += _differences(whole, contents(repository))
        checked = repository.run("env", "PYTHONPATH=.", "madan", "check-results", expect=None)
        faults += [checked.stdout.strip()] if checked.returncode else []
        print(f"finished run {finished}; {len(faults)} faults by now", flush=True)
    return Outcome(done, finished, faults)


def _attempt(
    repository: Repository, door: str, rng: random.Random | None, longest: float
) -> tuple[int, Kill | None]:
    """Start a command, kill its group unless `rng` is None; its exit code and the kill."""
    with (repository.root / "said").open("w") as said:
        running = subprocess.Popen(
            DOORS[door], cwd=repository.root, env=repository.env, stdout=said, stderr=said,
            process_group=0,
        )  # fmt: skip
    if rng is None:
        return running.wait(), None
    if rng.random() < 0.85:  # Else it may strike before the first job.
        _until_a_job(running)
    try:
        running.wait(rng.uniform(0, longest))
    except subprocess.TimeoutExpired:
        if rng.random() < 0.4:
            _until_publishing(repository.root, running)
    if running.poll() is not None:
        return running.returncode, None
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    rules = _rules(running.pid)
    os.killpg(running.pid, number)
    code = running.wait()
    deadline = time.monotonic() + 60  # Asked to end, jobs save their state first.
    while _group(running.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = processes(repository.root)
    assert not left, f"{left} are in no group of {door} and go on"
    return code, Kill(door, number.name, rules)


def _until_a_job(running: subprocess.Popen) -> None:
    """Return while a command of madan is at work, or after 60 seconds."""
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline:
        if _rules(running.pid) != NO_RULE:
            return
        time.sleep(0.1)


def _until_publishing(root: Path, running: subprocess.Popen) -> None:
    """Return while a job fills the folder that is to become its artefact, or after 5 seconds."""
    deadline = time.monotonic() + 5
    while running.poll() is None and time.monotonic() < deadline:
        for place in PLACES[:3]:
            if any(path.name.endswith(".new") for path in (root / place).rglob("*.new")):
                return
        time.sleep(0.005)


def _group(group: int) -> list[list[str]]:
    """Return the command lines of the living processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                found.append((entry / "cmdline").read_bytes().decode().split("\0"))
        except (OSError, ValueError):
            continue
    return found


def _rules(group: int) -> str:
    """Return which commands of madan a group is running."""
    found = set()
    for words in _group(group):
        names = [Path(word).name for word in words[:-1]]
        if "madan" in names:  # Also where it is called from a server, as quick.py has it.
            found.add(words[names.index("madan") + 1])
    return " and ".join(sorted(found - {"check"})) or NO_RULE


def _differences(whole: dict[str, bytes], made: dict[str, bytes]) -> list[str]:
    """Say which files are missing, are more, or have other bytes."""
    names = sorted(whole.keys() | made.keys())
    return [
        f"{name} {'is missing' if name not in made else 'is more' if name not in whole else 'differs'}"  # noqa: E501
        for name in names
        if whole.get(name) != made.get(name)
    ]


def show(outcome: Outcome) -> None:
    """Print kills by command and signal, by rule, and what was wrong."""
    print(f"{len(outcome.kills)} kills, {outcome.finished} finished runs")
    for (door, name), count in sorted(
        collections.Counter((kill.door, kill.signal) for kill in outcome.kills).items()
    ):
        print(f"  {door}, {name}: {count}")
    print("in:")
    for rules, count in collections.Counter(kill.rules for kill in outcome.kills).most_common():
        print(f"  {rules}: {count}")
    print(f"faults (files that differ, commands that failed): {len(outcome.faults)}")
    print("\n".join(f"  {fault}" for fault in outcome.faults))


def main() -> None:
    """Run the experiment that the command line asks for; exit code 1 if anything was wrong."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=100)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--longest", type=float, default=12, help="seconds before a kill")
    asked.add_argument("--shell", action="store_true", help="start commands as a shell does")
    asked.add_argument("--within", type=float, default=float("inf"), help="seconds in all")
    words = asked.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = (world(Path(folder) / name) for name in ("undisturbed", "killed"))
        undisturbed.snakemake()
        print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
        if words.shell:
            killed.own_processes()
        outcome = kill_often(
            killed, contents(undisturbed), words.kills, words.seed, words.longest,
            begun + words.within,
        )  # fmt: skip
    show(outcome)
    print(f"seed {words.seed}, {time.monotonic() - begun:.0f} s")
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()

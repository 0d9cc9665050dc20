"""Injected faults: whatever happens to a job, the run ends with the bits of one left in peace.

MADAN_FAULTS says how many random kills there are (10 if it says nothing); `make faults` has 60 and
prints the table of docs/reliability.md.
"""

import collections
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from conftest import World, params_yaml, tiny

from madan import config
from madan.config import schema
from madan.engine import resume
from madan.pipeline import settings
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get("MADAN_FAULTS", 10))
SAVE_EVERY = 3
METHODS = {
    "CycleGAN": ("translators", "cyclegan-gta5"),
    "MADAN": ("translators", "madan"),  # with two snapshots
    "joint": ("translators", "joint"),
    "segmenter": ("segmenters", "madan-pixel"),
    "ADDA": ("adaptations", "madan"),
    "feat, by class": ("adaptations", "madan-classwise"),
    "CAG": ("translators", "with-cag"),
    "feat with CLA": ("adaptations", "with-cla"),
    "self-training": ("adaptations", "self-training"),
    "MDAN": ("adaptations", "mdan"),
}
COMMANDS = {
    "miniature": "miniature", "verified": "verify", "prepared": "prepare",
    "translators": "translate",
    "stylised": "stylise", "segmenters": "segment", "adaptations": "adapt",
}  # fmt: skip
TABLE = collections.defaultdict(list)  # (method, fault) -> (where it was, steps lost)


def small(raw):
    """A world whose every job takes about a second, with dropout and a history that is full."""
    params = tiny(raw)
    params["miniature"]["size"] = [32, 64]
    for domain in params["domains"].values():
        if "size" in domain:
            domain["size"] = [32, 64]
    for section in ("segmenter", "translator", "adaptation"):
        params["training"][section] |= {"steps": 20, "batch": 2, "crop": [32, 64]}
    params["training"]["translator"]["pool"] = 5
    params["training"]["segmenter"]["batch"] = 4
    judges = {"gta5": "source-gta5", "synthia": "source-gta5"}
    for name in ("madan", "joint"):
        params["translators"][name] |= {"steps": 10, "judges": judges}
        params["translators"][name]["task"]["start"] = "source-gta5"
    params["translators"]["madan"]["keep"] = [4, 9]
    params["training"]["translator"]["cag"]["crops"] = [[16, 32]]
    params["translators"]["with-cag"] = params["translators"]["cyclegan-gta5"] | {"cag": True}
    params["adaptations"]["with-cla"] = params["adaptations"]["madan-feat"] | {"cla": True}
    params["adaptations"]["self-training"] = {
        "method": "self-training", "masked": True, "train_on": ["gta5"], "start": "source-gta5",
        "target": "cityscapes",
    }  # fmt: skip
    params["networks"]["feature_discriminator"]["dropout"] = 0.2
    params["training"] |= {"save_every": SAVE_EVERY, "log_every": 4}
    return params


class Small(World):
    """A world in which commands are run without Snakemake, in processes that start at once."""

    def __init__(self, root, params):
        super().__init__(root, params)
        self.graph = Graph(config.resolve(params))

    def folder(self, method):
        return self.root / self.graph.folder(parse("/".join(METHODS[method])))

    def states(self, method):
        kind, name = METHODS[method]
        return self.root / f"state/miniature/{kind}/{name}/seed0"

    def start(self, method, *more, **kw):
        kind, name = METHODS[method]
        return forked.start(self.root, COMMANDS[kind], name, *more, **kw)

    def clear(self, method):
        shutil.rmtree(self.folder(method), ignore_errors=True)
        shutil.rmtree(self.states(method), ignore_errors=True)
        (self.root / "said").unlink(missing_ok=True)

    def said(self):
        return (self.root / "said").read_text()

    def saved(self, method):
        """The saved states as (step, file), the oldest first."""
        files = self.states(method).glob("*.pt")
        return sorted((int(re.search(r"-step(\d+)-", path.name)[1]), path) for path in files)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A world in which every method was trained without a fault; how long its steps took."""
    raw = params_yaml()
    world = Small(tmp_path_factory.mktemp("small"), small(raw))
    world.took = {}
    for artefact in world.graph.ancestry([parse("/".join(run)) for run in METHODS.values()]):
        words = artefact.name.split("/") if artefact.kind == "stylised" else [artefact.name]
        shown = forked.steps()
        made = forked.start(world.root, COMMANDS[artefact.kind], *words, shown=shown)
        if (artefact.kind, artefact.name) in METHODS.values():
            forked.wait_for(lambda: shown.first.value >= 0 or made.exitcode)  # noqa: B023
        begun = time.monotonic()
        assert forked.finish(made) == 0, world.said()
        world.took[artefact.kind, artefact.name] = time.monotonic() - begun
    yield world
    for (method, fault), found in sorted(TABLE.items()):
        where = collections.Counter(place for place, _ in found)
        places = ", ".join(f"{place} {count}" for place, count in sorted(where.items()))
        lost = [steps for _, steps in found]
        print(f"\n| {method} | {fault} | {len(found)} | {places} | {max(lost)} |", end="")
    print()


@pytest.fixture
def world(finished, tmp_path):
    """A copy of the finished world, to be harmed."""
    for name in ("data", "results", "state"):
        shutil.copytree(finished.root / name, tmp_path / name)
    return Small(tmp_path, finished.params)


def same(finished, world, method, tidy=True):
    made = [
        {path.name: path.read_bytes() for path in each.folder(method).iterdir()}
        for each in (finished, world)
    ]
    assert (
        {"weights.safetensors", "log.csv", "certificate.json"} <= made[0].keys() == made[1].keys()
    )
    assert [name for name in made[0] if made[0][name] != made[1][name]] == [], method
    left = [path.name for path in world.states(method).glob("*") if path.name != "lock"]
    assert left == [] or not tidy  # Killed between the two, it has published and not cleared.


@contextlib.contextmanager
def mounted(world, place, *options):
    """A small file system at that place, or a skip where the machine allows none."""
    place.mkdir(parents=True, exist_ok=True)
    if os.getuid() or shutil.which("mount") is None:
        pytest.skip("mounting a file system needs root")
    if world.run("mount", *options, place, expect=None).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def place_of(world, method, shown, steps):
    if (world.folder(method) / "certificate.json").exists():
        return "after the end"
    if shown.done.value < 0:
        return "at the start"
    if shown.done.value == steps:
        return "publishing"
    return "saving" if list(world.states(method).glob("*.new")) else "in a step"


def until_saving(folder, process):
    """Return while a state is being written, or when the process has ended."""
    new = folder / "0of1.new"
    deadline = time.monotonic() + 2
    while not os.path.exists(new) and time.monotonic() < deadline and process.is_alive():
        pass


def kills(method):
    """The share of the method in the random kills."""
    position = list(METHODS).index(method)
    return KILLS // len(METHODS) + (position < KILLS % len(METHODS))


@pytest.mark.parametrize("method", METHODS)
def test_a_job_killed_at_random_moments_ends_with_the_same_bits(finished, world, method):
    rng = random.Random(f"{method} 1")
    steps = settings.steps(parse("/".join(METHODS[method])), world.graph.params)
    left, due = kills(method), None
    while left:
        world.clear(method)
        again = rng.randint(1, 3)
        while not (world.folder(method) / "certificate.json").exists():
            shown = forked.steps()
            process = world.start(method, shown=shown)
            number = None
            if again and left:
                number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM,
                                     signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])  # fmt: skip
                if rng.random() < 0.9:  # Else it may die before the first step.
                    forked.wait_for(lambda: shown.first.value >= 0)  # noqa: B023
                process.join(rng.uniform(0, finished.took[METHODS[method]]))
                if number == signal.SIGKILL and rng.random() < 0.4:
                    until_saving(world.states(method), process)
                if process.exitcode is None:
                    os.kill(process.pid, number)
                    again, left = again - 1, left - 1
                else:
                    number = None  # It was quicker.
            code = forked.finish(process)
            assert code == 0 or number, world.said()
            if due and shown.first.value >= 0:
                fault, where, done = due
                lost = max(0, done - shown.first.value)
                assert lost <= (SAVE_EVERY if fault == "SIGKILL" else 0), due
                TABLE[method, fault].append((where, lost))
                due = None
            if number:
                fault = signal.Signals(number).name
                where = place_of(world, method, shown, steps)
                if where in ("at the start", "after the end"):
                    TABLE[method, fault].append((where, 0))
                else:
                    due = fault, where, shown.done.value
        same(finished, world, method, tidy=code == 0)


def stopped_after_two_saves(world, method="CycleGAN"):
    """The states of a run that was killed when it had saved twice."""
    world.clear(method)
    process = world.start(method)
    forked.wait_for(lambda: len(world.saved(method)) == 2)
    process.kill()
    process.join()
    return world.saved(method)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "one bit of the newest state": flip,
    "newest state cut short": lambda path: os.truncate(path, path.stat().st_size // 3),
    "newest state empty": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_state_is_noticed_and_the_one_before_used(finished, world, fault):
    (before, _), (after, newest) = stopped_after_two_saves(world)
    DAMAGE[fault](newest)
    shown = forked.steps()
    assert forked.finish(world.start("CycleGAN", shown=shown)) == 0
    assert shown.first.value == before
    assert f"{newest.name} is damaged: the state of step {before} is used" in world.said()
    same(finished, world, "CycleGAN")
    TABLE["CycleGAN", fault].append(("between two jobs", after - before))


def test_when_all_states_are_damaged_the_run_is_refused_with_the_way_out(world):
    for _, path in stopped_after_two_saves(world):
        flip(path)
    assert forked.finish(world.start("CycleGAN")) == 1
    assert "are damaged: delete state/miniature/translators" in world.said()


def test_times_of_files_do_not_decide_which_state_is_the_newest(finished, world):
    (_, older), (step, newest) = stopped_after_two_saves(world)
    os.utime(older, (4e9, 4e9))
    os.utime(newest, (1, 1))
    shown = forked.steps()
    assert forked.finish(world.start("CycleGAN", shown=shown)) == 0
    assert shown.first.value == step
    same(finished, world, "CycleGAN")
    TABLE["CycleGAN", "clock set back and forth"].append(("between two jobs", 0))


def test_a_disk_that_is_full_while_saving_keeps_the_state_before(finished, world):
    size = stopped_after_two_saves(world)[0][1].stat().st_size
    world.clear("CycleGAN")
    small = "-t", "tmpfs", "-o", f"size={size * 3 // 2 // 1024}k", "small"
    with mounted(world, world.states("CycleGAN"), *small) as place:
        assert forked.finish(world.start("CycleGAN")) == 1
        assert "No space left on device" in world.said().splitlines()[-1]
        [(step, state)] = world.saved("CycleGAN")
        assert step == SAVE_EVERY and resume.is_whole(state) and not list(place.glob("*.new"))
        assert not world.folder("CycleGAN").exists()
        world.run("mount", "-o", "remount,size=64m", place)
        shown = forked.steps()
        assert forked.finish(world.start("CycleGAN", shown=shown)) == 0
        assert shown.first.value == SAVE_EVERY
    same(finished, world, "CycleGAN")
    TABLE["CycleGAN", "disk full"].append(("saving", SAVE_EVERY))


def test_a_disk_that_is_full_while_stylising_leaves_nothing_half_done(finished, world):
    stylised = "results/miniature/stylised/madan/gta5"
    shutil.rmtree(world.root / stylised)
    small = "-t", "tmpfs", "-o", "size=16k", "small"
    with mounted(world, world.root / stylised, *small) as place:
        assert forked.finish(forked.start(world.root, "stylise", "madan", "gta5")) == 1
        assert "No space left on device" in world.said().splitlines()[-1]
        assert not list(place.rglob("*"))
        world.run("mount", "-o", "remount,size=64m", place)
        assert forked.finish(forked.start(world.root, "stylise", "madan", "gta5")) == 0
        for path in (finished.root / stylised).rglob("*.npy"):
            copy = world.root / path.relative_to(finished.root)
            assert path.read_bytes() == copy.read_bytes()
    TABLE["stylise", "disk full"].append(("writing a shard", 0))


def test_a_results_folder_that_cannot_be_written_is_a_sentence_before_any_step(world):
    world.clear("segmenter")
    results = world.root / "results"
    with mounted(world, results, "--bind", results):
        world.run("mount", "-o", "remount,ro,bind", results)
        shown = forked.steps()
        assert forked.finish(world.start("segmenter", shown=shown)) == 1
        assert "Read-only file system" in world.said() and world.said().count("\n") == 1
        assert shown.done.value == -1
    TABLE["segmenter", "results read-only"].append(("at the start", 0))


def test_a_loss_that_is_not_finite_stops_with_step_and_losses_and_keeps_the_state(world):
    world.change("training.segmenter.lr", 1e30)
    assert forked.finish(forked.start(world.root, "segment", "source-gta5")) == 1
    assert re.search(r"task is not finite at step \d+ \(task nan\)", world.said()), world.said()
    assert world.said().count("\n") == 1
    TABLE["segmenter", "loss not finite"].append(("in a step", 0))


ARTEFACTS = {
    "a prepared shard": "data/prepared/miniature/gta5/train-32x64/0-of-1/images.npy",
    "its labels": "data/prepared/miniature/gta5/train-32x64/0-of-1/labels.npy",
    "a stylised shard": "results/miniature/stylised/madan/synthia/seed0/1/images.npy",
    "weights": "results/miniature/translators/madan/seed0/weights.safetensors",
}


@pytest.mark.parametrize("what", ARTEFACTS)
def test_one_flipped_bit_in_what_a_job_reads_is_refused_by_name(world, what):
    world.clear("segmenter")
    if what == "a stylised shard":  # Another job has read it before, and knows it.
        assert forked.finish(world.start("segmenter")) == 0
        world.clear("segmenter")
    path = world.root / ARTEFACTS[what]
    was = path.stat()
    flip(path)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    shown = forked.steps()
    assert forked.finish(world.start("segmenter", shown=shown)) == 1
    [artefact] = [
        str(p)
        for p in Path(ARTEFACTS[what]).parents
        if (world.root / p / "certificate.json").exists()
    ]
    # Known files that changed make the artefact out of date; unknown ones are read and refused.
    told = rf"{artefact}\S* .*changed since the certificate was written|{artefact} is damaged"
    assert re.search(told, world.said().splitlines()[-1]), world.said()
    assert world.said().startswith("madan: ") or what == "a stylised shard"
    assert shown.done.value == -1
    TABLE["segmenter", f"one bit of {what}"].append(("before the job", 0))


class Pair:
    """Two processes that train the CycleGAN of a world."""

    def __init__(self, world):
        self.world, self.shown = world, [forked.steps() for _ in range(2)]
        world.clear("CycleGAN")

    def start(self):
        for each in self.shown:
            each.first.value = each.done.value = -1
        return [
            self.world.start("CycleGAN", environment=place, said=f"said{k}", shown=self.shown[k])
            for k, place in enumerate(forked.group(2))
        ]

    def finish(self):
        """Train to the end; the weights' bytes."""
        assert [forked.finish(process) for process in self.start()] == [0, 0]
        return (self.world.folder("CycleGAN") / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def bits_of_two(finished, tmp_path_factory):
    """What two processes make of the CycleGAN when nothing happens to them."""
    root = tmp_path_factory.mktemp("two")
    shutil.copytree(finished.root / "data", root / "data")
    return Pair(Small(root, finished.params)).finish()


@pytest.mark.parametrize(
    ("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGUSR1)]
)
def test_two_processes_of_which_one_is_killed_end_with_the_same_bits(
    world, bits_of_two, victim, number
):
    pair = Pair(world)
    processes = pair.start()
    forked.wait_for(lambda: pair.shown[0].done.value >= 5)
    os.kill(processes[victim].pid, number)
    codes = [forked.finish(process) for process in processes]
    done = pair.shown[0].done.value
    if number == signal.SIGKILL:
        assert codes[victim] == -9 and codes[1 - victim] == 1
        assert "lost the others" in (world.root / f"said{1 - victim}").read_text()
    else:
        assert codes == [128 + signal.SIGTERM, 128 + number]
    assert pair.finish() == bits_of_two
    lost = max(0, done - pair.shown[0].first.value)
    assert lost <= (SAVE_EVERY if number == signal.SIGKILL else 0)
    TABLE["CycleGAN, 2 processes", f"{number.name} to one"].append(("in a step", lost))


def test_a_state_of_two_processes_is_left_alone_by_one(finished, world, bits_of_two):
    pair = Pair(world)
    processes = pair.start()
    forked.wait_for(lambda: len(world.saved("CycleGAN")) >= 2)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    assert [forked.finish(process) for process in processes] == [128 + signal.SIGTERM] * 2
    kept = {path.name for _, path in world.saved("CycleGAN")}
    shown = forked.steps()
    assert forked.finish(world.start("CycleGAN", shown=shown)) == 0
    assert shown.first.value == 0
    same(finished, world, "CycleGAN", tidy=False)
    assert {path.name for _, path in world.saved("CycleGAN")} == kept
    assert pair.finish() == bits_of_two and pair.shown[0].first.value > 0
    assert not world.saved("CycleGAN")


def test_what_two_processes_make_is_out_of_date_for_one(world, monkeypatch):
    Pair(world).finish()
    monkeypatch.chdir(world.root)
    reason = Staleness(world.graph).reason(parse("/".join(METHODS["CycleGAN"])))
    assert reason == ("settings", "training.processes was 2, is not there")
    assert "trained by 2 processes, which give other bits than the 1 of params.yaml" in (
        (world.root / "said0").read_text()
    )


def test_pictures_hold_no_pickled_objects(world):
    path = world.root / ARTEFACTS["a prepared shard"]
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    (path.parent / "certificate.json").unlink()
    from madan.data.datasets import Pictures

    with pytest.raises(schema.Refusal, match="images.npy is damaged"):
        Pictures("gta5", [path.parent])

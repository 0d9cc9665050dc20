"""Several processes: gradients of one on the whole batch, disjoint data, starting and ending."""

import contextlib
import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios

import forked
import pytest
import torch
from conftest import World, params_yaml, tiny, write_set

from madan import config, labels
from madan.config import schema
from madan.data import batches
from madan.data.datasets import Pictures
from madan.engine import distributed, gpu, training
from madan.errors import Refusal
from madan.methods import adaptation, losses, segmentation
from madan.methods.translation import Translator

CROP = (16, 32)
ALIGNED = {
    "ADDA": {"method": "adda"},
    "feat": {"method": "feat", "on": "features"},
    "classwise": {"method": "feat", "classwise": True},
    "CLA": {"method": "feat", "on": "features", "cla": True},
    "MDAN": {"method": "mdan"},
    "self-training": {"method": "self-training", "masked": True},
}
METHODS = ("segmenter", "in parts", "CycleGAN", "MADAN", "CAG", *ALIGNED)


def build(name, folder):
    """A method over random images, without the dropout and histories that differ by process."""
    raw = tiny(params_yaml())
    raw["networks"]["segmenter"]["dropout"] = 0.0
    raw["training"]["segmenter"] |= {"crop": list(CROP), "batch": 4}
    raw["training"]["translator"] |= {"crop": list(CROP), "batch": 2, "pool": 0}
    raw["training"]["translator"]["gates"] = {"sad": 0, "ccd": 0}
    raw["training"]["translator"]["cag"] = {"crops": [[8, 16]]}
    raw["training"]["self_training"]["threshold"] = 0.1
    raw["training"]["adaptation"] |= {"crop": list(CROP), "batch": 4, "gate": 0, "weight": 1}
    params = config.resolve(raw)
    if not (folder / "one").exists():
        for seed, part in enumerate(("one", "two", "target")):
            write_set(folder / part, part, count=8, seed=seed)
    sets = {part: _pictures(folder, part) for part in ("one", "two", "target")}
    training.begin(0, 1)
    one_two = [sets["one"], sets["two"]]
    if name in ("segmenter", "in parts", "MDAN", "self-training"):
        # Ignored pixels lie unevenly, so that each process has another number of labelled ones.
        sets["one"]._labels[0] = sets["one"]._labels[0].copy()
        sets["one"]._labels[0][:3, :12] = labels.IGNORE
    if name in ("segmenter", "in parts"):
        net = segmentation.build(params.networks.segmenter)
        parts = {"accumulate": 2 if name == "in parts" else 1}
        settings = params.training.segmenter.model_copy(update=parts)
        return segmentation.Supervised(net, one_two, settings, 10, 0)
    if name in ALIGNED:
        net = segmentation.build(params.networks.segmenter)
        run = schema.Adaptation(target="target", **ALIGNED[name])
        return adaptation.build(params, run, net, one_two, sets["target"], 10, 0)
    more = {}
    run = schema.Translator(sources=["one"], target="target", cag=name == "CAG")
    if name == "MADAN":
        run = schema.Translator(
            sources=["one", "two"], target="target", sad=True, ccd=True, semantic="dsc",
            judges={"one": "a", "two": "a"}, task={"start": "a", "update_every": 1},
        )  # fmt: skip
        more["judges"] = {i: segmentation.build(params.networks.segmenter) for i in run.sources}
        more["task"] = segmentation.build(params.networks.segmenter)
        more["class_weights"] = segmentation.class_weights(one_two, params.training.segmenter)
    sources = {i: sets[i] for i in run.sources}
    settings = params.training.translator, params.networks, sources, sets["target"]
    return Translator(run, *settings, steps=10, seed=0, **more)


def _pictures(folder, part):
    return Pictures(part, [folder / part], [folder / part])


def first_gradients(name, folder):
    """Gradients and figures of the first step, written by the first process."""
    method = build(name, folder)
    gradients = {}

    def keep(name, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        found = [p.grad.flatten() for p in parameters if p.grad is not None]
        gradients[name] = torch.cat(found).clone()

    for key, optimizer in method.optimizers.items():
        optimizer.register_step_pre_hook(lambda made, *_, key=key: keep(key, made))
    figures = distributed.figures(method.update(0))
    if distributed.rank() == 0:
        torch.save((gradients, figures), folder / f"{distributed.size()}.pt")


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_gradients_of_one_on_the_whole_batch(name, tmp_path):
    first_gradients(name, tmp_path)
    forked.in_group(2, first_gradients, name, tmp_path)
    (one, alone), (two, together) = (torch.load(tmp_path / f"{n}.pt") for n in (1, 2))
    assert set(one) == set(two)
    for optimizer, gradient in one.items():
        assert gradient.norm() > 0
        print(optimizer, (gradient - two[optimizer]).norm() / gradient.norm())
        assert (gradient - two[optimizer]).norm() < 1e-5 * gradient.norm(), optimizer
    # A divergence near 0 is a difference of logarithms, known to their rounding alone.
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-7)


def three_steps(name, folder):
    """What a process holds after three steps, written by each of them."""
    method = build(name, folder)
    for step in range(3):
        torch.manual_seed(step)
        method.update(step)
    held = {n: module.state_dict() for n, module in method.modules.items() if "pool" not in n}
    torch.save(held, folder / f"rank{distributed.rank()}.pt")


@pytest.mark.parametrize("name", METHODS)
def test_all_processes_hold_the_same_bits_of_weights_and_of_the_gate(name, tmp_path):
    build(name, tmp_path)
    forked.in_group(2, three_steps, name, tmp_path)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for module, tensors in one.items():
        for key, value in tensors.items():
            assert torch.equal(value, other[module][key]), f"{module}.{key}"


def test_the_gate_goes_by_the_accuracy_of_all_processes(tmp_path, monkeypatch):
    method = build("ADDA", tmp_path)
    monkeypatch.setattr(distributed, "mean", lambda value: torch.full_like(value, 1))
    window = method.settings.window
    assert method.update(0)["accuracy"] == pytest.approx(1 / window)


def test_a_mean_of_each_processs_own_mean_would_not_be_enough(tmp_path):
    """The control of the test above: the batch's labelled pixels really lie unevenly."""
    method = build("segmenter", tmp_path)
    _, truth = method._draw(0)
    counts = [losses.task_total(part, None).item() for part in truth.view(2, 2, *CROP).unbind(1)]
    assert counts[0] != counts[1]


@pytest.fixture
def as_rank(monkeypatch):
    """Make this process believe that it is one of several."""

    def as_rank(rank, size):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "size", lambda: size)

    return as_rank


@pytest.mark.parametrize("step", [0, 3])
def test_processes_see_disjoint_parts_of_the_batch_that_one_would_see(tmp_path, as_rank, step):
    pictures = write_set(tmp_path / "set", "set", count=8)
    settings = pictures, 5, step, 6, (8, 16), True, True
    whole = batches.draw(*settings)
    parts = []
    for rank in range(3):
        as_rank(rank, 3)
        parts.append(batches.draw(*settings))
    assert [len(part.images) for part in parts] == [2, 2, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.truth() for part in parts]), whole.truth())


def test_jitter_of_a_part_is_that_of_its_rows_in_the_batch(tmp_path, as_rank):
    method = build("segmenter", tmp_path)
    whole, _ = method._draw(2)
    for rank in range(2):
        as_rank(rank, 2)
        part, _ = method._draw(2)
        assert torch.equal(part, whole[[rank, 2 + rank]])


def test_a_batch_without_equal_shares_is_refused(as_rank):
    as_rank(0, 4)
    with pytest.raises(Refusal, match="6 images do not divide evenly between 4 processes"):
        distributed.share(6)


def test_random_numbers_of_a_step_differ_by_process_and_not_by_anything_else():
    seeds = {training._step_seed(seed, step, rank)
             for seed in range(3) for step in range(50) for rank in range(4)}  # fmt: skip
    assert len(seeds) == 600
    assert training._step_seed(1, 2, 0) == 1_000_005


def test_one_process_does_nothing():
    value = torch.ones(3)
    assert distributed.mean(value) is value
    assert distributed.share(5) == range(5)
    assert distributed.figures({"loss": 1.5}) == {"loss": 1.5}
    assert distributed.newest_common([3, 9]) == 9 and distributed.newest_common([]) is None
    distributed.join({})
    assert (distributed.rank(), distributed.size()) == (0, 1)


STEP = {"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "first"), [("n1", "n1"), ("n[01-02],m7", "n01"), ("gpu-a,gpu-b", "gpu-a")]
)
def test_a_slurm_step_of_several_tasks_is_a_group(nodes, first):
    place = distributed._place(STEP | {"SLURM_STEP_NODELIST": nodes})
    assert place["MASTER_ADDR"] == first
    assert (place["WORLD_SIZE"], place["RANK"], place["LOCAL_RANK"]) == ("4", "3", "1")
    assert 20000 <= int(place["MASTER_PORT"]) < 40010
    other = distributed._place(STEP | {"SLURM_STEP_NODELIST": nodes, "MASTER_PORT": "99"})
    assert other["MASTER_PORT"] == "99"


def test_a_slurm_job_that_was_not_started_with_several_tasks_is_alone():
    batch_script = {"SLURM_JOB_ID": "41", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert distributed.expected(batch_script) == 1
    assert distributed.expected(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) == 1
    assert distributed.expected({"WORLD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "4"}) == 2


def refuses_on_the_second(folder):
    distributed.join()
    try:
        with distributed.together():
            if distributed.rank():
                raise OSError(28, "No space left on device")
    except OSError:
        (folder / "second").touch()
    except SystemExit as leaving:
        assert leaving.code == 1
        (folder / "first").touch()


def test_trouble_of_one_process_ends_the_others(tmp_path):
    forked.in_group(2, refuses_on_the_second, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    raw = tiny(params_yaml())
    raw["training"]["segmenter"]["steps"] = 200
    world = World(tmp_path_factory.mktemp("prepared"), raw)
    drawn = ("miniature", "gta5"), ("verify", "gta5/train"), ("prepare", "gta5/train/0")
    for words in drawn:
        assert forked.finish(forked.start(world.root, *words)) == 0
    return world


def test_the_command_starts_its_processes_passes_signals_on_and_they_save(prepared):
    """The real command, asked to leave by USR1, whose default would kill it."""
    command = [sys.executable, "-c", "from madan.cli import main; main()"]
    command += ["segment", "source-gta5", "--processes", "2"]
    state = prepared.root / "state/miniature/segmenters/source-gta5/seed0"
    with subprocess.Popen(command, cwd=prepared.root, env=prepared.env) as running:
        forked.wait_for(lambda: len(list(state.glob("*of2.pt"))) >= 2)
        running.send_signal(signal.SIGUSR1)
        assert running.wait(60) == 128 + signal.SIGUSR1
    assert len(list(state.glob("*-1of2.pt"))) == 2
    assert not (prepared.root / "results/miniature/segmenters/source-gta5/seed0").exists()


def test_no_process_outlives_the_one_that_started_it(prepared):
    command = [sys.executable, "-c", "from madan.cli import main; main()"]
    command += ["segment", "source-gta5", "--processes", "2"]
    state = prepared.root / "state/miniature/segmenters/source-gta5/seed0"
    before = {path.name for path in state.glob("*.pt")}
    with subprocess.Popen(command, cwd=prepared.root, env=prepared.env) as running:
        forked.wait_for(lambda: {path.name for path in state.glob("*.pt")} - before)
        running.kill()
    with (state / "lock").open() as lock:
        forked.wait_for(lambda: _free(lock))


def test_a_run_whose_terminal_is_closed_saves_and_leaves(prepared):
    """The kernel sends HUP, and from then on writing to the terminal is an error."""
    state = prepared.root / "state/miniature/segmenters/source-gta5/seed0"
    shutil.rmtree(state, ignore_errors=True)
    ours, theirs = pty.openpty()

    def own_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-c", "from madan.cli import main; main()", "segment", "source-gta5"]
    with subprocess.Popen(
        command, cwd=prepared.root, env=prepared.env, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=own_terminal,
    ) as running:  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        forked.wait_for(lambda: _drained(ours) and len(list(state.glob("*.pt"))) >= 2)
        last = max(state.glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
        os.kill(running.pid, signal.SIGSTOP)
        os.close(ours)
        os.kill(running.pid, signal.SIGCONT)
        assert running.wait(60) == 128 + signal.SIGHUP
    assert max(state.glob("*.pt"), key=lambda path: path.stat().st_mtime_ns) != last
    shutil.rmtree(state)


def _drained(terminal):
    with contextlib.suppress(BlockingIOError):
        while os.read(terminal, 1 << 16):
            pass
    return True


def _free(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def test_another_number_of_processes_than_were_started_is_refused(prepared):
    words = ["segment", "source-gta5", "--processes", "3"]
    place = forked.group(2)[0]
    assert forked.finish(forked.start(prepared.root, *words, environment=place, said="no")) == 1
    assert "--processes is 3, but 2 processes were started" in (prepared.root / "no").read_text()


def test_a_command_waits_for_the_lease_of_another(prepared):
    shutil.rmtree(prepared.root / "state/miniature", ignore_errors=True)
    pretend = {"MADAN_GPUS": "1", "MADAN_ALLOW_CPU": "1"}
    held = gpu.lease(1, prepared.root / gpu.LEASES, dict(pretend))
    said = prepared.root / "waits"
    process = forked.start(
        prepared.root, "segment", "source-gta5", environment=pretend, said="waits"
    )
    forked.wait_for(
        lambda: said.exists() and "waiting for 1 free of the GPUs 0" in said.read_text()
    )
    assert not (prepared.root / "state/miniature").exists()
    held.give_back()
    forked.wait_for((prepared.root / "state/miniature/segmenters/source-gta5").exists)
    process.kill()
    process.join()


def test_more_processes_than_gpus_are_refused(prepared):
    words = ["segment", "source-gta5", "--processes", "2"]
    started = forked.start(prepared.root, *words, environment={"MADAN_GPUS": "1"}, said="few")
    assert forked.finish(started) == 1
    assert "2 GPUs are asked for and 1 can be seen" in (prepared.root / "few").read_text()

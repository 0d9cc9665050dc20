"""Several processes that train one run together: who they are, what they share, how they start.

Each holds the same weights and takes its share of the batch that one process would draw; the mean
of their gradients is then that of the whole batch. They find each other by torchrun's variables
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or by those of a Slurm step. With one
process, which is the usual case, everything here does nothing.
"""

import atexit
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from madan.errors import Refusal

GRACE = 60  # seconds in which processes leave after another one failed
NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ASKED = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP


def heeded() -> list[signal.Signals]:
    """Signals by which a process is asked to leave; not SIGHUP where nohup has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in ASKED if not (ignored and number == signal.SIGHUP)]


def size() -> int:
    """How many processes train this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(batch: int) -> range:
    """Rows of a batch that this process takes; Refusal when there is no equal share for each."""
    count = size()
    if batch % count:
        raise Refusal(
            f"{batch} images do not divide evenly between {count} processes; "
            "make training.*.batch a multiple for each set, or start another number of processes."
        )
    each = batch // count
    return range(rank() * each, (rank() + 1) * each)


def mean(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes, without gradient; with one process the tensor itself."""
    if size() == 1:
        return value
    total = value.detach().clone()
    _sum(total)
    return total / size()


def figures(values: Mapping[str, float]) -> dict[str, float]:
    """Means of named numbers over the processes, which all have the same names."""
    if size() == 1:
        return dict(values)
    means = mean(torch.tensor(list(values.values()), dtype=torch.float64).to(_device()))
    return dict(zip(values, means.tolist(), strict=True))


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Replace the gradients of an optimiser's parameters by their means over the processes."""
    if size() == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def newest_common(steps: Sequence[int]) -> int | None:
    """The highest number that every process names, of at most four each."""
    if size() == 1:
        return max(steps, default=None)
    mine = torch.full((4,), -1, dtype=torch.int64, device=_device())
    chosen = sorted(steps)[-4:]
    mine[: len(chosen)] = torch.tensor(chosen, dtype=torch.int64)
    gathered = [torch.empty_like(mine) for _ in range(size())]
    with _named():
        dist.all_gather(gathered, mine)
    common = set.intersection(*(set(each.tolist()) for each in gathered)) - {-1}
    return max(common, default=None)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that ends for all processes when one of them refuses or meets an error of files."""
    if size() == 1:
        yield
        return
    trouble: Exception | None = None
    try:
        yield
    except (Refusal, OSError) as error:
        trouble = error
    flag = torch.tensor(float(trouble is not None), device=_device())
    _sum(flag)
    if trouble:
        raise trouble
    if flag.item():
        raise SystemExit(1)  # The process with the trouble says what it is.


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Join the processes with which torchrun, srun or `launch` started this one, if any."""
    place = _place(environment)
    if int(place.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return
    os.environ.update(place)
    if "MADAN_LAUNCHER" in environment:
        _leave_with(int(environment["MADAN_LAUNCHER"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(place["LOCAL_RANK"]) % torch.cuda.device_count())
    with _named():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(dist.destroy_process_group)
    if rank():
        # The first process tells how it goes, all tell what is wrong.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def expected(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes torchrun, srun or `launch` started, this one among them."""
    return int(_place(environment).get("WORLD_SIZE", 1))


def launch(count: int, gpus: Sequence[str] = (), keep: Sequence[int] = ()) -> int:
    """Run this very command in `count` processes of this machine; return their exit code.

    The k-th process sees the k-th of `gpus` alone, where some are given; `keep` are open files
    that all inherit. TERM, INT, USR1 and HUP are passed on. When one fails, the others are stopped.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-c", "from madan.cli import main; main()", *sys.argv[1:]]
    shared = {
        "WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # The port is this process's: nobody can take it.
        "MADAN_LAUNCHER": os.getpid(),
    }
    children = []
    for k in range(count):
        own = {"RANK": k, "LOCAL_RANK": k} | ({"CUDA_VISIBLE_DEVICES": gpus[k]} if gpus else {})
        environment = os.environ | {name: str(value) for name, value in (shared | own).items()}
        children.append(subprocess.Popen(command, env=environment, pass_fds=keep))

    def pass_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in heeded()}
    try:
        return _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[subprocess.Popen]) -> int:
    """Exit code of the first process that failed, else 0; the others may save and leave."""
    failed, since = 0, 0.0
    while any(child.poll() is None for child in children):
        codes = [child.returncode for child in children if child.returncode]
        if codes and not failed:
            failed, since = codes[0], time.monotonic()
            for child in children:
                child.terminate()
        elif failed and time.monotonic() - since > GRACE:
            for child in children:
                child.kill()
        time.sleep(0.05)
    failed = failed or next((child.returncode for child in children if child.returncode), 0)
    return 128 - failed if failed < 0 else failed


def _place(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of `NAMES` as torchrun set them, or made from those of a Slurm step."""
    if "WORLD_SIZE" in environment:
        return {name: environment[name] for name in NAMES if name in environment}
    # SLURM_NTASKS is set in every job; only srun sets the number of tasks of a step.
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1":
        return {}
    port = 20000 + int(environment["SLURM_JOB_ID"]) * 7 % 20000
    found = {
        "WORLD_SIZE": tasks,
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": _first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(port + int(environment.get("SLURM_STEP_ID", 0)) % 7),
    }
    return found | {name: environment[name] for name in NAMES if name in environment}


def _first_host(nodes: str) -> str:
    """The first name of Slurm's list, such as n01 of `n[01-04,7],m1`."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def _leave_with(launcher: int) -> None:
    """Have the kernel send TERM when the launching process is gone, so that no child stays."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != launcher:
        raise SystemExit(128 + signal.SIGTERM)


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _sum(tensor: Tensor) -> None:
    with _named():
        dist.all_reduce(tensor)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turn the end of a connection into a sentence."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise Refusal(
            f"process {os.environ.get('RANK', '?')} lost the others that train this run "
            f"({reason}); the one that ended first says why. The last saved state is kept."
        ) from None

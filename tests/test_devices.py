"""The lease on a GPU, with pretend devices: never two jobs on one unless told to."""

import os
import subprocess
import sys
import threading

import pytest

from madan.engine import gpu
from madan.errors import Refusal

HOLD = """
import sys
from madan.engine import gpu as devices
held = devices.lease(int(sys.argv[1]), pause=0.02)
print(",".join(held.gpus), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "MADAN_GPU_SHARE", "MADAN_GPUS"):
        monkeypatch.delenv(name, raising=False)


def take(count=1, **environment):
    environment = {name: str(value) for name, value in environment.items()}
    lease = gpu.lease(count, environment=environment, pause=0.02)
    return lease, environment.get("CUDA_VISIBLE_DEVICES")


def blocked(*words, **environment):
    """A thread that asks for a lease, and what it got within a third of a second."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(take(*words, **environment)))
    thread.start()
    thread.join(0.3)
    return thread, taken


def test_jobs_get_different_gpus_and_see_only_theirs():
    leases = [take(MADAN_GPUS=4) for _ in range(4)]
    assert sorted(visible for _, visible in leases) == ["0", "1", "2", "3"]
    for lease, visible in leases:
        assert lease.gpus == (visible,)
        lease.give_back()


def test_a_job_waits_for_a_free_gpu_and_says_so_once(capfd):
    first, _ = take(MADAN_GPUS=1)
    thread, taken = blocked(MADAN_GPUS=1)
    assert not taken
    first.give_back()
    thread.join(5)
    assert taken[0][1] == "0"
    assert capfd.readouterr().out == "waiting for 1 free of the GPUs 0\n"
    taken[0][0].give_back()


def test_the_lease_of_a_process_that_was_killed_is_free():
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, "1"], env=os.environ | {"MADAN_GPUS": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "0\n"
        thread, taken = blocked(MADAN_GPUS=1)
        assert not taken
        holder.kill()
    thread.join(5)
    assert taken[0][1] == "0"
    taken[0][0].give_back()


def test_only_the_gpus_that_are_visible_are_leased():
    leases = [take(MADAN_GPUS=8, CUDA_VISIBLE_DEVICES="5,2") for _ in range(2)]
    assert [visible for _, visible in leases] == ["5", "2"]
    for lease, _ in leases:
        lease.give_back()


@pytest.mark.parametrize("visible", ["", "-1", "-1,0"])
def test_hidden_gpus_are_not_leased(visible):
    assert take(MADAN_GPUS=2, CUDA_VISIBLE_DEVICES=visible) == (gpu.Lease((), ()), visible)
    assert not gpu.LEASES.exists()


def test_several_gpus_are_taken_together_or_not_at_all():
    one, _ = take(MADAN_GPUS=3)
    two, visible = take(2, MADAN_GPUS=3)
    assert visible == "1,2"
    two.give_back()
    other, _ = take(MADAN_GPUS=3)
    thread, taken = blocked(2, MADAN_GPUS=3)
    assert not taken
    third, _ = take(MADAN_GPUS=3)  # What the waiting job could have had is not held back.
    for lease in (one, other, third):
        lease.give_back()
    thread.join(5)
    assert len(taken[0][0].gpus) == 2
    taken[0][0].give_back()


def test_jobs_share_a_gpu_when_told_to_and_spread_first():
    leases = [take(MADAN_GPUS=2, MADAN_GPU_SHARE=2) for _ in range(4)]
    assert [visible for _, visible in leases] == ["0", "1", "0", "1"]
    thread, taken = blocked(MADAN_GPUS=2, MADAN_GPU_SHARE=2)
    assert not taken
    for lease, _ in leases:
        lease.give_back()
    thread.join(5)
    taken[0][0].give_back()


def test_more_gpus_than_there_are_is_refused():
    with pytest.raises(Refusal, match=r"3 GPUs are asked for and 2 can be seen \(0, 1\)"):
        take(3, MADAN_GPUS=2)


def test_a_slurm_job_has_its_gpus_already_and_leases_among_more():
    assert take(SLURM_JOB_ID=7, CUDA_VISIBLE_DEVICES="0")[0] == gpu.Lease((), ())
    assert take(2, SLURM_JOB_ID=7, CUDA_VISIBLE_DEVICES="0,1")[0] == gpu.Lease((), ())
    # Numbers mean other GPUs in another allocation.
    leases = [take(SLURM_JOB_ID=job, CUDA_VISIBLE_DEVICES="0,1") for job in (7, 8)]
    assert [visible for _, visible in leases] == ["0", "0"]
    for lease, _ in leases:
        lease.give_back()


def test_gpus_are_counted_without_starting_cuda(tmp_path, monkeypatch):
    command = tmp_path / "bin/nvidia-smi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho 'GPU 1: A (UUID: b)'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    assert gpu.available({}) == ["0", "1"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu.available({}) == []


def test_a_number_that_is_none_is_refused():
    with pytest.raises(Refusal, match="MADAN_GPU_SHARE is many; it must be a whole number"):
        take(MADAN_GPUS=1, MADAN_GPU_SHARE="many")

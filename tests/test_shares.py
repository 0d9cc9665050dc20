"""Shares of a machine: jobs side by side never exceed it, and one alone always fits."""

import pytest
from conftest import PROJECT
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from madan.errors import Refusal
from madan.pipeline import shares


@pytest.mark.parametrize(
    ("mem_mb", "machine", "share"),
    [(900, 1000, 10000), (450, 1000, 5000), (1, 10**6, 1), (32000, 64000, 5556),
     (32000, 16000, 10000)],
)  # fmt: skip
def test_share_of_memory_by_hand(mem_mb, machine, share):
    assert shares.memory_share(mem_mb, machine) == share


@given(st.lists(st.integers(1, 64000), min_size=1), st.integers(1000, 10**6))
def test_jobs_whose_shares_fit_have_the_memory_that_they_ask_for(asked, machine):
    if sum(shares.memory_share(each, machine) for each in asked) <= shares.WHOLE and len(asked) > 1:
        assert sum(asked) <= machine


@given(st.integers(1, 64))
def test_exactly_as_many_jobs_as_gpus_run_at_once(places):
    one = shares.gpu_share(1, places)
    assert places * one <= shares.WHOLE < (places + 1) * one


def test_a_job_of_all_gpus_runs_and_one_without_a_gpu_takes_none():
    assert shares.gpu_share(4, 4) == shares.gpu_share(9, 4) == 10000
    assert shares.gpu_share(0, 0) == shares.gpu_share(3, 0) == 0
    assert shares.gpu_share(0, 2) == 5000  # It leases one all the same.


def test_places_are_the_gpus_times_the_jobs_that_share_one(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("MADAN_GPUS", "3")
    monkeypatch.setenv("MADAN_GPU_SHARE", "2")
    assert shares.gpu_places() == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares.gpu_places() == 0
    monkeypatch.setenv("MADAN_GPU_SHARE", "none")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(Refusal, match="MADAN_GPU_SHARE"):
        shares.gpu_places()


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path):
    limit = tmp_path / "memory.max"
    whole = shares.memory_mb(limit)
    limit.write_text("max\n")
    assert shares.memory_mb(limit) == whole > 100
    limit.write_text("64000000\n")
    assert shares.memory_mb(limit) == 64
    limit.write_text(f"{10**18}\n")
    assert shares.memory_mb(limit) == whole


def test_the_profile_of_one_machine_limits_shares_and_no_fixed_number_of_bytes():
    profile = YAML(typ="safe").load((PROJECT / "profiles/default/config.yaml").read_text())
    assert profile["resources"] == [f"memory_share={shares.WHOLE}", f"gpu_share={shares.WHOLE}"]

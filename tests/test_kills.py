"""Whole runs that are killed end with the bits of one that was not; `make kills` has more."""

import kills
import pytest
from conftest import processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    made = kills.world(tmp_path_factory.mktemp("kills") / "undisturbed", 6, "source-gta5")
    made.snakemake()
    return made


def test_a_whole_run_that_is_killed_and_started_again_ends_with_the_same_bytes(
    undisturbed, tmp_path
):
    killed = kills.world(tmp_path / "killed", 6, "source-gta5")
    outcome = kills.kill_often(killed, kills.contents(undisturbed), 2, seed=1, longest=1.5)
    assert (outcome.faults, len(outcome.kills), outcome.finished > 0) == ([], 2, True)
    assert not processes(killed.root)


def test_the_comparison_sees_a_file_that_differs_is_missing_or_is_more():
    whole, made = {"a": b"1", "b": b"2"}, {"a": b"?", "c": b"3"}
    assert kills._differences(whole, made) == ["a differs", "b is missing", "c is more"]

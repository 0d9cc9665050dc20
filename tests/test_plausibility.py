"""Plausibility: shares against published ones, and kinds of ids, with numbers by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madan import labels
from madan.data import plausibility
from madan.data.inspection import Inspection
from madan.data.layouts import LAYOUTS
from madan.data.plausibility import PUBLISHED
from madan.miniature import writer


def layout_of(name):
    return LAYOUTS[name]._replace(ids=name)


def seen(name, ids, layout, **more):
    """An inspection of these pixels of each id."""
    table = LAYOUTS[layout].table
    pixels = np.zeros(256, int)
    for value, count in ids:
        pixels[table[value]] += count
    counts = (*pixels[:19].tolist(), int(pixels[255]))
    return Inspection(name, (), ("a", "b"), (1, 1), counts, tuple(ids), **more)


def published(layout, kind, pixels=100_000):
    """Pixels of each id of a kind, as frequent as in the release."""
    back = writer.native_ids(kind)
    wanted = np.array(PUBLISHED[layout]) / np.sum(PUBLISHED[layout])
    ids = [*range(19), labels.IGNORE]
    found = {}
    for train_id, share in zip(ids, wanted, strict=True):
        value = int(back[train_id])
        found[value] = found.get(value, 0) + round(share * pixels)
    return sorted((value, count) for value, count in found.items() if count)


@pytest.mark.parametrize("layout", PUBLISHED)
def test_published_shares_are_of_all_pixels(layout):
    assert len(PUBLISHED[layout]) == 20
    assert sum(PUBLISHED[layout]) == pytest.approx(100, abs=0.4)
    assert all(share >= 0 for share in PUBLISHED[layout])


def test_shares_and_shifts_by_hand():
    ids = [(7, 60), (26, 20), (0, 15), (35, 5)]
    found = plausibility.shares(ids, LAYOUTS["cityscapes"].table)
    assert (found[0], found[13], found[19], found[20]) == (0.6, 0.2, 0.15, 0.05)
    expected = [0.0] * 20
    expected[0], expected[13] = 50, 50
    # Road has 10 points too many, 15 are not counted and 5 unknown: of cars 30 are missing.
    assert plausibility.shift(found, expected) == pytest.approx(0.3)
    assert plausibility.shares([], LAYOUTS["cityscapes"].table).sum() == 0


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 10**9)), min_size=1, max_size=30,
                unique_by=lambda pair: pair[0]), st.sampled_from(sorted(LAYOUTS)))  # fmt: skip
def test_shares_sum_to_one_and_shifts_lie_between_none_and_all(ids, name):
    found = plausibility.shares(ids, LAYOUTS[name].table)
    assert found.sum() == pytest.approx(1)
    assert -1e-9 <= plausibility.shift(found, PUBLISHED["gta5"]) <= 1 + 1e-9


@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_release_itself_has_no_finding(layout):
    one = seen("1", published(layout, layout), layout)
    assert plausibility.check(layout_of(layout), True, True, [one] * 3) == []


@pytest.mark.parametrize(
    ("layout", "kind", "named"),
    [
        ("cityscapes", "bdd100k", "train ids"),
        ("cityscapes", "synthia", "SYNTHIA ids"),
        ("gta5", "bdd100k", "train ids"),
        ("gta5", "synthia", "SYNTHIA ids"),
        ("synthia", "bdd100k", "train ids"),
        ("synthia", "cityscapes", "Cityscapes label ids"),
    ],
)
def test_the_release_in_ids_of_another_kind_is_named(layout, kind, named):
    ids = [pair for pair in published(layout, kind) if pair[0] != 255 or kind == "bdd100k"]
    findings = plausibility.check(layout_of(layout), True, True, [seen("1", ids, layout)] * 3)
    [other] = [finding for finding in findings if finding.kind == "other ids"]
    assert f"these are {named}, as it seems: as ids of {layout} " in other.detail


def test_gta5_labels_are_of_cityscapes_kind_and_the_other_way_round():
    for layout, other in (("gta5", "cityscapes"), ("cityscapes", "gta5")):
        one = seen("1", published(other, other), layout)
        found = plausibility.check(layout_of(layout), True, False, [one])
        assert [finding.kind for finding in found] == []


def test_too_few_ids_tell_nothing():
    one = seen("1", [(0, 600), (8, 400)], "cityscapes")
    assert plausibility.check(layout_of("cityscapes"), False, False, [one]) == []


def test_shares_far_from_published_ones_are_said_with_both_numbers():
    one = seen("1", [(7, 90), (26, 6), (21, 2), (11, 1), (23, 1)], "cityscapes")
    [finding] = plausibility.check(layout_of("cityscapes"), True, True, [one])
    assert finding.kind == "shares"
    assert finding.detail.startswith("road 90 %, published 32.6 %; building 1 %, published 20.2 %")
    # Of images of another size only a share that is not counted is said.
    assert plausibility.check(layout_of("cityscapes"), True, False, [one]) == []
    assert plausibility.check(layout_of("cityscapes"), False, True, [one]) == []


def test_what_has_no_published_shares_is_not_compared():
    one = seen("1", [(0, 90), (13, 6), (8, 2), (2, 1), (10, 1)], "bdd100k")
    assert plausibility.check(layout_of("bdd100k"), True, True, [one]) == []


def test_palettes_must_agree_with_each_other():
    one = Inspection("1", palette=((3, 0x102030), (4, 0x405060)))
    two = Inspection("2", palette=((4, 0x405060), (5, 0x708090)))
    assert plausibility.check(LAYOUTS["gta5"], False, False, [one, two]) == []
    [foreign] = plausibility.check(LAYOUTS["camvid"], True, False, [one, two])
    assert foreign == ("foreign palette", "", "2 labels, such as 1")
    three = Inspection("3", palette=((3, 0x405060),))
    [differ] = plausibility.check(LAYOUTS["camvid"], True, False, [one, two, three])
    assert differ == ("palettes differ", "", "id 3 is (16, 32, 48) in 1 and (64, 80, 96) in 3")
    grey = Inspection("4", how="greys of its palette")
    [differ] = plausibility.check(LAYOUTS["camvid"], True, False, [one, grey])
    assert "4 is read by the greys of its palette, 1 cannot be" in differ.detail

"""Label images: what a file shows decides its ids, whichever way an encoder stores them."""

import re

import encoders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from madan import labels
from madan.data import masks
from madan.data.layouts import LAYOUTS, Meaning
from madan.data.masks import NotIds
from madan.errors import Refusal
from madan.labels import IGNORE, UNKNOWN

RELEASES = [
    (name, k) for name, layout in LAYOUTS.items() for k, form in enumerate(layout.forms)
    if form.values == "ids"
]  # fmt: skip
SIZE = (6, 7)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("masks")


def meaning_of(layout: str, **more) -> Meaning:
    return Meaning("ids", LAYOUTS[layout].table, True)._replace(**more)


def known(layout: str) -> list[int]:
    """Ids of the layout but for those that share their colour with a class."""
    shared = {18} if layout in ("gta5", "cityscapes") else set()
    return sorted(set(np.flatnonzero(LAYOUTS[layout].table != UNKNOWN).tolist()) - shared)


@st.composite
def label(draw, layout: str) -> np.ndarray:
    """Some ids of the layout, blocks of them [6, 7]."""
    some = draw(st.lists(st.sampled_from(known(layout)), min_size=1, max_size=6, unique=True))
    return np.random.default_rng(draw(st.integers(0, 999))).choice(some, SIZE)


def black_and_white(path) -> bool:
    with Image.open(path) as opened:
        return set(np.unique(np.asarray(opened.convert("L"))).tolist()) <= {0, 255}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_encoder_of_the_same_ids_is_read_alike_or_refused(scratch, data):
    layout, _ = data.draw(st.sampled_from(RELEASES))
    ids, encode = data.draw(label(layout)), data.draw(st.sampled_from(encoders.ENCODERS))
    path = scratch / "1.png"
    encode(path, ids, np.random.default_rng(data.draw(st.integers(0, 99))))
    try:
        mask = masks.read(path, meaning_of(layout))
    except NotIds as refusal:
        # Only where a file shows black and white alone can it mean two things.
        assert str(path) in str(refusal)
        assert black_and_white(path)
    else:
        assert np.array_equal(mask.truth, LAYOUTS[layout].table[ids])
        assert mask.unknown == ()
        assert mask.pixels.tolist() == np.bincount(mask.truth.ravel(), minlength=256).tolist()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_releases_colours_are_read_whatever_their_indices_are(scratch, data):
    layout, _ = data.draw(st.sampled_from(RELEASES))
    ids, table = data.draw(label(layout)), LAYOUTS[layout].table
    path = scratch / "1.png"
    how = data.draw(st.sampled_from(["as released", "renumbered", "truecolour"]))
    if how == "as released":
        encoders.coloured_palette(path, ids, table)
    elif how == "renumbered":
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        encoders.renumbered_palette(path, ids, table, rng)
    else:
        encoders.truecolour(path, ids, table)
    classes = (table[ids] != IGNORE).any()
    try:
        mask = masks.read(path, meaning_of(layout))
    except NotIds:
        assert how == "truecolour" and not classes  # all black may be anything
    else:
        if classes or how == "as released":
            assert np.array_equal(mask.truth, table[ids])


def test_a_renumbered_palette_is_read_by_colour_and_said(tmp_path):
    ids = np.array([[7, 26], [23, 0]])
    table = LAYOUTS["gta5"].table
    encoders.coloured_palette(tmp_path / "1.png", ids, table)
    assert masks.read(tmp_path / "1.png", meaning_of("gta5")).how == ""
    encoders.png(
        tmp_path / "2.png", np.array([[0, 1], [2, 3]]), 2, encoders.PALETTE,
        np.array([(128, 64, 128), (0, 0, 142), (70, 130, 180), (0, 0, 0)]),
    )  # fmt: skip
    mask = masks.read(tmp_path / "2.png", meaning_of("gta5"))
    assert mask.truth.tolist() == [[0, 13], [10, IGNORE]]
    assert (mask.how, mask.ids) == ("colours of its palette", ())


def test_a_group_of_poles_keeps_the_releases_index(tmp_path):
    """It has the colour of a pole, but is not counted."""
    palette = np.zeros((19, 3), int)
    palette[7], palette[17], palette[18] = (128, 64, 128), (153,) * 3, (153,) * 3
    encoders.png(tmp_path / "1.png", np.array([[7, 17, 18]]), 8, encoders.PALETTE, palette)
    mask = masks.read(tmp_path / "1.png", meaning_of("cityscapes"))
    assert (mask.truth.tolist(), mask.how) == ([[0, 5, IGNORE]], "")


@pytest.mark.parametrize("layout", ["gta5", "cityscapes"])
def test_static_of_the_release_and_traffic_sign_as_grey_palette_are_told_apart(tmp_path, layout):
    palette = np.array([(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (20, 20, 20)])
    encoders.png(tmp_path / "1.png", np.array([[0, 4]]), 4, encoders.PALETTE, palette)
    assert masks.read(tmp_path / "1.png", meaning_of(layout)).truth.tolist() == [[255, 255]]
    encoders.png(tmp_path / "2.png", np.array([[0, 1]]), 1, encoders.PALETTE, palette[[0, 4]])
    assert masks.read(tmp_path / "2.png", meaning_of(layout)).truth.tolist() == [[255, 7]]


@pytest.mark.parametrize("encode", ["palette", "bits"])
def test_black_and_white_that_may_mean_two_things_is_refused_with_both(tmp_path, encode):
    path, ids = tmp_path / "1.png", np.array([[0, 1]])
    if encode == "bits":
        encoders.png(path, ids, 1, encoders.GREY)
    else:
        encoders.png(path, ids, 1, encoders.PALETTE, np.array([(0, 0, 0), (255, 255, 255)]))
    with pytest.raises(
        NotIds, match=re.escape("black and white, which may mean ids [0, 1] or [0, 255]")
    ):
        masks.read(path, meaning_of("bdd100k"))
    own = meaning_of("bdd100k", table=LAYOUTS["camvid"].table, released=False)  # has no id 255
    assert masks.read(path, own).truth.tolist() == [[10, 2]]


def test_ids_packed_into_few_bits_are_read_where_only_they_are_known(tmp_path):
    encoders.png(tmp_path / "1.png", np.array([[0, 3, 8, 11]]), 4, encoders.GREY)
    mask = masks.read(tmp_path / "1.png", meaning_of("camvid"))
    assert (mask.truth.tolist(), mask.how) == ([[10, 0, 13, IGNORE]], "values of 4 bits")


def test_unknown_ids_and_colours_are_counted_by_value(tmp_path):
    encoders.png(tmp_path / "1.png", np.array([[7, 200, 200, 35]]), 8, encoders.GREY)
    assert masks.read(tmp_path / "1.png", meaning_of("gta5")).unknown == (("200", 2), ("35", 1))
    encoders.png(tmp_path / "2.png", np.array([[7, 300]]), 16, encoders.GREY)
    assert masks.read(tmp_path / "2.png", meaning_of("gta5")).unknown == (("300", 1),)
    table = np.full(1 << 24, UNKNOWN, np.uint8)
    table[labels.key((1, 2, 3))] = 0
    pixels = np.array([[(1, 2, 3), (3, 2, 1), (3, 2, 1)]])
    encoders.png(tmp_path / "3.png", pixels, 8, encoders.RGB)
    mask = masks.read(tmp_path / "3.png", Meaning("colours", table))
    assert mask.unknown == (("(3, 2, 1)", 2),)
    assert mask.truth.tolist() == [[0, UNKNOWN, UNKNOWN]]


@pytest.mark.parametrize("values", ["ids", "colours"])
def test_a_jpeg_is_no_label_image(tmp_path, values):
    Image.new("RGB" if values == "colours" else "L", (8, 8)).save(tmp_path / "1.png", format="JPEG")
    with pytest.raises(NotIds, match=r"1\.png is a JPEG, which changes values at every border"):
        masks.read(tmp_path / "1.png", Meaning(values, LAYOUTS["gta5"].table))


def test_regions_are_not_counted(tmp_path):
    encoders.png(tmp_path / "1.png", np.full((10, 4), 7), 8, encoders.GREY)
    regions = ((0.8, 0.0, 1.0, 1.0), (0.0, 0.5, 0.1, 1.0))
    mask = masks.read(tmp_path / "1.png", meaning_of("gta5", regions=regions))
    expected = np.zeros((10, 4), int)
    expected[8:], expected[0, 2:] = IGNORE, IGNORE
    assert mask.truth.tolist() == expected.tolist()
    assert (mask.pixels[0], mask.pixels[IGNORE]) == (30, 10)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_label_is_turned_upright_by_its_own_entry(tmp_path, turn, late):
    ids = np.array([[7, 8, 11], [12, 13, 17]])
    encoders.png(tmp_path / "1.png", ids, 8, encoders.GREY, turn=turn, late=late)
    with Image.open(tmp_path / "1.png") as opened:
        opened.load()
        from PIL import ImageOps

        shown = np.asarray(ImageOps.exif_transpose(opened))
    mask = masks.read(tmp_path / "1.png", meaning_of("gta5"))
    assert np.array_equal(mask.truth, LAYOUTS["gta5"].table[shown])
    assert mask.turn == turn


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sixteen_bits_are_read_from_red_alone(scratch, data):
    ids = data.draw(label("synthia"))
    others = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 65536, (*SIZE, 2))
    path = scratch / "1.png"
    encoders.png(path, np.concatenate([ids[:, :, None], others], 2), 16, encoders.RGB)
    table = LAYOUTS["synthia"].table
    mask = masks.read(path, Meaning("sixteen bits", table, True))
    assert np.array_equal(mask.truth, table[ids])
    assert dict(mask.ids) == {int(k): int((ids == k).sum()) for k in np.unique(ids)}


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), encode=st.sampled_from(encoders.ENCODERS))
def test_a_label_cut_anywhere_is_refused_or_read_right(scratch, cut, encode):
    ids = np.array([[7, 26, 23], [0, 17, 11]])
    path = scratch / "1.png"
    encode(path, ids, np.random.default_rng(0))
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    try:
        mask = masks.read(path, meaning_of("gta5"))
    except Refusal as refusal:
        assert str(path) in str(refusal)
    else:
        assert np.array_equal(mask.truth, LAYOUTS["gta5"].table[ids])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_ignored_otherwise_is_no_evidence_of_how_a_file_is_read(scratch, data):
    """Greys of a palette that shows ids are not ids, though all values are allowed."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[[0, 7, 12]] = 0, 13, 10
    ids = np.random.default_rng(data.draw(st.integers(0, 99))).choice([0, 7, 12, 40], SIZE)
    palette = np.repeat(np.random.default_rng(1).permutation(200)[:41, None] + 50, 3, 1)
    encoders.png(scratch / "1.png", ids, 8, encoders.PALETTE, palette)
    mask = masks.read(scratch / "1.png", Meaning("ids", table, otherwise=True))
    expected = np.where(table[ids] == UNKNOWN, IGNORE, table[ids])
    assert np.array_equal(mask.truth, expected) and mask.unknown == ()
    assert mask.pixels.tolist() == np.bincount(expected.ravel(), minlength=256).tolist()

"""Native pairs in, shards out, and one sentence for whatever is wrong with a file."""

import contextlib
import hashlib
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from conftest import dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from madan import labels
from madan.data import datasets, layouts
from madan.data.datasets import Pictures, Verified
from madan.data.layouts import LAYOUTS, Meaning
from madan.data.masks import NotIds
from madan.errors import Refusal
from madan.miniature import writer

SIZE = (32, 64)
COUNTS = {
    "gta5": {"train": 3, "val": 2},
    "synthia": {"train": 3},
    "cityscapes": {"train": 3, "val": 4},
    "bdd100k": {"train": 2},
}
EXACT = ["cityscapes", "gta5", "synthia"]  # layouts without lossy images


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The miniature world, three or so images a layout; not to be changed."""
    root = tmp_path_factory.mktemp("drawn")
    for layout, images in COUNTS.items():
        writer.write(layout, root / layout, images=images, size=SIZE, seed=0)
    return root


@pytest.fixture
def own(drawn, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(drawn, tmp_path / "own")


def items(root, layout, split="train"):
    return layouts.items(dataset(layout, root / layout), split)


def first(root, layout, split="train"):
    return items(root, layout, split)[0]


def meaning(layout, form=0):
    lies = LAYOUTS[layout]
    return Meaning(lies.forms[form].values, lies.table, released=True)


def read(item, layout, form=0):
    return datasets.read(item, meaning(layout, form))


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def verified(found, **excluded):
    """What verify says when it finds nothing, but for these exclusions."""
    pairs = {i.name: (sha(i.image), sha(i.label)) for i in found if i.name not in excluded}
    return Verified(pairs, excluded)


def prepare(root, out, layout, split="train", n=1, order=None, seen=None, **more):
    data = dataset(layout, root / layout, shards=n, **more)
    folders = [out / str(k) for k in range(n)]
    for k in order or range(n):
        folders[k].mkdir(parents=True)
        known = seen or verified(layouts.items(data, split))
        datasets.prepare(data, split, k, known, folders[k])
    return folders


def halve(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_png(path, rows, width, height, depth, colour):
    """A PNG of these rows of bytes, written without the library that reads it."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
        )
    )


def write_sixteen_bits(path, red, green=0):
    planes = np.zeros((*red.shape, 3), ">u2")
    planes[..., 0], planes[..., 1] = red, green
    write_png(path, (row.tobytes() for row in planes), *red.shape[::-1], 16, 2)


@contextlib.contextmanager
def refused(match):
    with pytest.raises(Refusal, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


# --- Reading ---------------------------------------------------------------------------------


def test_synthia_classes_are_the_red_of_all_sixteen_bits(own):
    item = first(own, "synthia")
    red = np.full(SIZE, 22)
    red[:10], red[10:20] = 3, 21
    write_sixteen_bits(item.label, red, green=np.full(SIZE, 300))
    truth = read(item, "synthia").truth
    assert [np.unique(part).tolist() for part in (truth[:10], truth[10:20], truth[20:])] == [
        [0],
        [3],
        [labels.IGNORE],
    ]
    with Image.open(item.label) as opened:
        assert not np.asarray(opened)[..., 0].any(), "Pillow keeps the high byte, which is 0"


def test_synthia_labels_of_eight_bits_are_read_in_their_own_form(own):
    item = first(own, "synthia")
    ids = np.full(SIZE, 3, np.uint8)
    ids[:10] = 12
    Image.fromarray(ids).save(item.label)
    truth = read(item, "synthia", form=1).truth
    assert (np.unique(truth[:10]), np.unique(truth[10:])) == ([17], [0])


def test_a_label_of_grey_ids_reads_as_one_of_palette_indices(own):
    item = first(own, "gta5")
    before = read(item, "gta5").truth
    with Image.open(item.label) as opened:
        assert opened.mode == "P"
        ids = np.asarray(opened)
    Image.fromarray(ids).save(item.label)
    assert np.array_equal(before, read(item, "gta5").truth)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_a_grey_or_transparent_image_is_read_in_three_channels(own, mode):
    item = first(own, "gta5")
    Image.new(mode, SIZE[::-1], "white").save(item.image)
    image = read(item, "gta5").image
    assert image.shape == (*SIZE, 3)
    assert (image == 255).all()


@pytest.mark.parametrize("layout", sorted(COUNTS))
def test_a_pair_comes_with_the_hashes_of_its_files(drawn, layout):
    item = first(drawn, layout)
    assert read(item, layout).digests == (sha(item.image), sha(item.label))


# What has to be done to an upright picture so that its EXIF entry turns it back.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ON_ITS_SIDE = [5, 6, 7, 8]


def lay(path, pixels, orientation, **more):
    """Save pixels as a camera does that is held otherwise and notes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).transpose(TURNED[orientation]).save(path, exif=exif, **more)


@pytest.mark.parametrize("orientation", ON_ITS_SIDE)
def test_a_photo_that_lies_on_its_side_is_read_upright(own, orientation):
    item = first(own, "bdd100k")
    before = read(item, "bdd100k")
    lay(item.image, before.image, orientation, quality=95)
    after = read(item, "bdd100k")
    assert after.image.shape == before.image.shape == (*SIZE, 3)
    assert abs(after.image.astype(int) - before.image).mean() < 6
    assert np.array_equal(after.truth, before.truth)


@pytest.mark.parametrize("orientation", TURNED)
def test_image_and_label_that_are_turned_alike_are_both_read_upright(own, orientation):
    item = first(own, "cityscapes")
    before = read(item, "cityscapes")
    with Image.open(item.label) as opened:
        ids = np.asarray(opened)
    lay(item.image, before.image, orientation)
    lay(item.label, ids, orientation)
    after = read(item, "cityscapes")
    assert np.array_equal(after.image, before.image)
    assert np.array_equal(after.truth, before.truth)


@pytest.mark.parametrize("orientation", ON_ITS_SIDE)
def test_a_label_drawn_on_the_unturned_pixels_is_turned_with_its_image(own, orientation):
    item = first(own, "cityscapes")
    before = read(item, "cityscapes")
    with Image.open(item.label) as opened:
        ids = np.asarray(opened)
    lay(item.image, before.image, orientation)
    Image.fromarray(ids).transpose(TURNED[orientation]).save(item.label)
    after = read(item, "cityscapes")
    assert np.array_equal(after.image, before.image)
    assert np.array_equal(after.truth, before.truth)


@pytest.mark.parametrize("orientation", ON_ITS_SIDE)
def test_a_label_that_alone_is_turned_is_read_upright(own, orientation):
    item = first(own, "cityscapes")
    before = read(item, "cityscapes")
    with Image.open(item.label) as opened:
        ids = np.asarray(opened)
    lay(item.label, ids, orientation)
    assert np.array_equal(read(item, "cityscapes").truth, before.truth)


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_turn_of_one_alone_that_leaves_the_size_is_refused(own, orientation, which):
    """Whether the other was drawn before or after the turn, nothing says."""
    item = first(own, "cityscapes")
    path = getattr(item, which)
    with Image.open(path) as opened:
        pixels = np.asarray(opened)
    lay(path, pixels, orientation)
    with refused(f"the EXIF entry of the {which} turns it .orientation {orientation}.*upright"):
        read(item, "cityscapes")


@pytest.mark.parametrize("orientation", ON_ITS_SIDE)
def test_a_turn_of_a_square_image_alone_is_refused(own, orientation):
    item = first(own, "cityscapes")
    for path in item.files:
        with Image.open(path) as opened:
            opened.crop((0, 0, 32, 32)).save(path)
    with Image.open(item.image) as opened:
        pixels = np.asarray(opened)
    lay(item.image, pixels, orientation)
    with refused("their sizes do not say whether it is turned already"):
        read(item, "cityscapes")


def test_a_label_that_lies_on_its_side_without_an_entry_is_named(own):
    item = first(own, "cityscapes")
    with Image.open(item.label) as opened:
        opened.transpose(Image.Transpose.ROTATE_90).save(item.label)
    with refused("is 64x32 but its label .* is 32x64; one of them is turned by 90 degrees"):
        read(item, "cityscapes")


def test_labels_for_evaluation_are_prepared_upright(own, tmp_path):
    item = items(own, "cityscapes", "val")[1]
    before = read(item, "cityscapes")
    with Image.open(item.label) as opened:
        ids = np.asarray(opened)
    lay(item.image, before.image, 6)
    Image.fromarray(ids).transpose(TURNED[6]).save(item.label)
    [folder] = prepare(own, tmp_path / "out", "cityscapes", "val")
    assert np.array_equal(np.load(folder / "labels.npy")[1], before.truth)
    assert np.array_equal(np.load(folder / "images.npy")[1], before.image)


@pytest.mark.parametrize(("image", "label"), [(".PNG", ".png"), (".png", ".PNG"), (".Png", ".pNG")])
def test_files_whose_suffix_is_in_another_case_are_prepared(own, tmp_path, image, label):
    whole = prepare(own, tmp_path / "whole", "cityscapes", "val")
    for item in items(own, "cityscapes", "val"):
        item.image.rename(item.image.with_suffix(image))
        item.label.rename(item.label.with_suffix(label))
    found = items(own, "cityscapes", "val")
    assert {item.image.suffix for item in found} == {image}
    assert [
        layouts.item(dataset("cityscapes", own / "cityscapes"), "val", i.name) for i in found
    ] == found
    renamed = prepare(own, tmp_path / "renamed", "cityscapes", "val")
    for name in ("images.npy", "labels.npy", "manifest.json"):
        assert (renamed[0] / name).read_bytes() == (whole[0] / name).read_bytes()


# --- What is wrong with a file -----------------------------------------------------------------


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("layout", sorted(COUNTS))
def test_file_cut_short_is_named(own, layout, which):
    path = getattr(first(own, layout), which)
    halve(path)
    with refused(f"{path} cannot be read as an image .*cut short"):
        read(first(own, layout), layout)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>Sign in</html>"])
@pytest.mark.parametrize("layout", ["gta5", "synthia"])
def test_file_of_something_else_is_named_in_the_same_words_each_time(own, layout, content):
    said = set()
    for _ in range(2):
        for which in ("image", "label"):
            item = first(own, layout)
            path = getattr(item, which)
            right = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(Refusal, match=f"{path} cannot be read as an image") as caught:
                read(item, layout)
            said.add(str(caught.value).replace(str(path), ""))
            path.write_bytes(right)
    assert "0x" not in "".join(said)
    assert len(said) <= 2


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("layout", EXACT)
@pytest.mark.parametrize("side", [20_000, 40_000])
def test_decompression_bomb_is_refused(own, layout, which, side):
    path = getattr(first(own, layout), which)
    deep = which == "label" and layout == "synthia"
    write_png(path, [b"\0" * 99], side, side, 16 if deep else 8, 2 if deep else 0)
    assert path.stat().st_size < 200
    with refused(f"{path} cannot be read as an image .*exceeds limit"):
        read(first(own, layout), layout)


@pytest.mark.parametrize("layout", ["gta5", "cityscapes", "bdd100k"])
def test_label_of_another_size_is_named_with_both_sizes(own, layout):
    item = first(own, layout)
    with Image.open(item.label) as opened:
        opened.resize((32, 16), Image.Resampling.NEAREST).save(item.label)
    with refused(f"{item.image} is 64x32 but its label {item.label} is 32x16"):
        read(item, layout)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("layout", ["gta5", "cityscapes", "bdd100k"])
def test_label_that_does_not_hold_eight_bit_ids_is_refused(own, layout, mode):
    item = first(own, layout)
    Image.new(mode, SIZE[::-1]).save(item.label)
    with pytest.raises(NotIds, match=f"{item.label} is a {mode} image, expected 8-bit ids"):
        read(item, layout)


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_label_without_colours_is_refused_where_colours_are_expected(own, mode):
    item = first(own, "gta5")
    Image.new(mode, SIZE[::-1]).save(item.label)
    with pytest.raises(NotIds, match=f"{item.label} is a {mode} image, expected colours"):
        datasets.read(item, Meaning("colours", LAYOUTS["gta5"].table))


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_synthia_label_of_eight_bits_is_refused(own, shape):
    item = first(own, "synthia")
    Image.fromarray(np.zeros(shape, np.uint8)).save(item.label)
    said = "has uint8 values of shape .*expected a 16-bit three-channel PNG"
    with pytest.raises(NotIds, match=f"{item.label} {said}"):
        read(item, "synthia")


def test_synthia_label_of_one_channel_is_refused(own):
    item = first(own, "synthia")
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(item.label)
    with refused(r"has uint16 values of shape \(32, 64\), expected a 16-bit three-channel PNG"):
        read(item, "synthia")


@pytest.mark.parametrize("native_id", [23, 254, 255, 256 + 3, 300, 65535])
def test_synthia_id_that_no_class_has_is_refused_with_the_file(own, native_id):
    item = first(own, "synthia")
    red = np.full(SIZE, 3)
    red[4, 5] = native_id
    write_sixteen_bits(item.label, red)
    with refused(f"{item.label} holds ids that its layout does not have"):
        read(item, "synthia")


@pytest.mark.parametrize(
    ("layout", "native_id"), [("gta5", 35), ("gta5", 254), ("cityscapes", 34), ("bdd100k", 19)]
)
def test_id_that_no_class_has_is_refused_with_the_file(own, layout, native_id):
    item = first(own, layout)
    with Image.open(item.label) as opened:
        ids = np.array(opened)
    ids[0, 0] = native_id - 1 if native_id < 200 and layout != "bdd100k" else 255
    Image.fromarray(ids).save(item.label)
    assert read(item, layout).truth[0, 0] in (*range(19), labels.IGNORE)
    ids[0, 0] = native_id
    Image.fromarray(ids).save(item.label)
    with refused(f"{item.label} holds ids that its layout does not have"):
        read(item, layout)


@pytest.fixture(scope="module")
def bench(drawn, tmp_path_factory):
    """One item of each layout with its right reading, in a folder where files may be replaced."""
    own = shutil.copytree(drawn, tmp_path_factory.mktemp("bench") / "own")
    found = {layout: first(own, layout) for layout in COUNTS}
    return {layout: (item, read(item, layout)) for layout, item in found.items()}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(COUNTS)), st.sampled_from(["image", "label"]), st.floats(0, 1))
def test_file_cut_anywhere_is_refused_or_read_right(bench, layout, which, part):
    item, right = bench[layout]
    path = getattr(item, which)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    try:
        seen = read(item, layout)
    except Refusal as refusal:
        assert str(path) in str(refusal)
    else:
        assert np.array_equal(seen.image, right.image)
        assert np.array_equal(seen.truth, right.truth)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("layout", EXACT)
@pytest.mark.parametrize("which", ["image", "label"])
def test_wrong_bit_in_the_pixels_is_refused(bench, layout, which):
    item, _ = bench[layout]
    path = getattr(item, which)
    content = path.read_bytes()
    first, last = content.index(b"IDAT") + 4, content.index(b"IEND") - 8
    try:
        for place in np.linspace(first, last - 1, 40).astype(int):
            damaged = bytearray(content)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with refused(f"{path} cannot be read as an image"):
                read(item, layout)
    finally:
        path.write_bytes(content)


# --- Shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "sizes"), [(1, [4]), (3, [2, 1, 1]), (4, [1, 1, 1, 1])])
def test_shards_together_hold_every_item_once_in_turn(drawn, tmp_path, n, sizes):
    found = items(drawn, "cityscapes", "val")
    folders = prepare(drawn, tmp_path, "cityscapes", "val", n=n)
    for k, folder in enumerate(folders):
        images, truths = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
        assert len(images) == len(truths) == sizes[k]
        for row, item in enumerate(found[k::n]):
            image, truth, _ = read(item, "cityscapes")
            assert np.array_equal(images[row], image)
            assert np.array_equal(truths[row], truth)


def test_exclusions_leave_gaps(drawn, tmp_path):
    found = items(drawn, "cityscapes", "val")
    out = found[1].name
    seen = verified(found, **{out: "blank label"})
    folders = prepare(drawn, tmp_path, "cityscapes", "val", n=2, seen=seen)
    whole = prepare(drawn, tmp_path / "whole", "cityscapes", "val", n=2)
    for name in ("images.npy", "labels.npy", "manifest.json"):
        assert (folders[0] / name).read_bytes() == (whole[0] / name).read_bytes()
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["items"]] == [found[3].name]
    assert manifest["excluded"] == {out: "blank label"}
    assert np.array_equal(np.load(folders[1] / "images.npy"), np.load(whole[1] / "images.npy")[1:])


def test_what_was_not_verified_is_not_read(drawn, tmp_path):
    found = items(drawn, "cityscapes", "val")
    [folder] = prepare(drawn, tmp_path, "cityscapes", "val", seen=verified(found[:2]))
    assert len(np.load(folder / "images.npy")) == 2


@pytest.mark.parametrize("which", ["image", "label"])
def test_file_that_changed_since_it_was_verified_is_refused_by_name(own, tmp_path, which):
    found = items(own, "gta5")
    seen = verified(found)
    path, other = (getattr(found[k], which) for k in (1, 2))
    shutil.copy(other, path)
    with refused(f"{path} .*changed since it was verified"):
        prepare(own, tmp_path / "out", "gta5", seen=seen)
    path.unlink()
    with refused(f"{path} cannot be read"):
        prepare(own, tmp_path / "again", "gta5", seen=seen)


def test_shards_are_the_same_bytes_whatever_the_order_they_are_made_in(drawn, tmp_path):
    forth = prepare(drawn, tmp_path / "forth", "gta5", n=3)
    seen = verified(items(drawn, "gta5"))
    mixed = Verified(dict(reversed(seen.pairs.items())), {})
    back = prepare(drawn, tmp_path / "back", "gta5", n=3, order=[2, 0, 1], seen=mixed)
    for one, other in zip(forth, back, strict=True):
        for name in ("images.npy", "labels.npy", "manifest.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("layout", sorted(COUNTS))
def test_training_images_are_resized_bicubically_and_their_labels_by_nearest(
    drawn, tmp_path, layout
):
    size = (20, 24)
    [folder] = prepare(drawn, tmp_path, layout, size=size)
    images, truths = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    found = items(drawn, layout)
    assert images.shape == (len(found), *size, 3)
    assert truths.shape == (len(found), *size)
    for row, item in enumerate(found):
        image, truth, _ = read(item, layout)
        expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.array_equal(images[row], np.asarray(expected))
        expected = Image.fromarray(truth).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(truths[row], np.asarray(expected))
        assert set(np.unique(truths[row])) <= set(np.unique(truth))


@pytest.mark.parametrize("layout", ["gta5", "cityscapes"])
def test_labels_for_evaluation_keep_their_native_size(drawn, tmp_path, layout):
    [folder] = prepare(drawn, tmp_path, layout, "val", size=(16, 32))
    truths = np.load(folder / "labels.npy")
    assert np.load(folder / "images.npy").shape[1:] == (16, 32, 3)
    for row, item in enumerate(items(drawn, layout, "val")):
        assert np.array_equal(truths[row], read(item, layout).truth)


def test_smaller_labels_are_padded_with_ignore_which_pictures_take_off(own, tmp_path):
    item = items(own, "cityscapes", "val")[2]
    for path in (item.image, item.label):
        with Image.open(path) as opened:
            opened.crop((0, 0, 40, 24)).save(path)
    truth = read(item, "cityscapes").truth
    assert truth.shape == (24, 40)
    [folder] = prepare(own, tmp_path / "out", "cityscapes", "val")
    padded = np.load(folder / "labels.npy")[2]
    assert (padded[24:] == labels.IGNORE).all()
    assert (padded[:, 40:] == labels.IGNORE).all()
    pictures = Pictures("cityscapes", [folder], [folder])
    assert np.array_equal(pictures.label(2), truth)
    assert pictures.label(1).shape == SIZE
    assert pictures.image(2).shape == (*SIZE, 3)
    with_padding = sum(np.bincount(pictures.label(k).ravel(), minlength=256) for k in range(4))
    assert pictures.pixels().tolist() == with_padding[:19].tolist()


def test_manifest_names_the_files_their_hashes_and_the_pixels_of_each_class(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "gta5", size=(16, 32))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["items"]] == ["00001", "00002", "00003"]
    for entry, item in zip(manifest["items"], items(drawn, "gta5"), strict=True):
        assert entry["size"] == [16, 32]
        assert (entry["image"], entry["label"]) == (sha(item.image), sha(item.label))
    truths = np.load(folder / "labels.npy")
    assert manifest["pixels"] == [int((truths == train_id).sum()) for train_id in range(19)]
    assert manifest["excluded"] == {}


def test_label_for_evaluation_cut_short_is_named(own, tmp_path):
    path = first(own, "cityscapes", "val").label
    path.write_bytes(path.read_bytes()[:20])
    with refused(f"{path} cannot be read as an image"):
        prepare(own, tmp_path / "out", "cityscapes", "val")


def test_more_shards_than_items_are_refused(drawn, tmp_path):
    with refused("fewer train images than the 4 shards of params.yaml"):
        prepare(drawn, tmp_path, "gta5", n=4)


def test_a_file_system_without_room_ends_the_work(drawn, tmp_path):
    """Through a memory map it would kill the process: as a stream it is an error."""
    data = dataset("gta5", drawn / "gta5")
    (tmp_path / "images.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        datasets.prepare(data, "train", 0, verified(items(drawn, "gta5")), tmp_path)


# --- Pictures --------------------------------------------------------------------------------


def test_pictures_count_through_their_shards_in_order(drawn, tmp_path):
    folders = prepare(drawn, tmp_path, "cityscapes", "val", n=3)
    pictures = Pictures("cityscapes", folders, folders)
    assert len(pictures) == 4
    shown = [np.load(folder / "images.npy") for folder in folders]
    truths = [np.load(folder / "labels.npy") for folder in folders]
    for index, (shard, row) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0)]):
        assert np.array_equal(pictures.image(index), shown[shard][row])
        assert np.array_equal(pictures.label(index), truths[shard][row])
    counted = [json.loads((f / "manifest.json").read_text())["pixels"] for f in folders]
    assert pictures.pixels().tolist() == np.sum(counted, axis=0).tolist()


def test_stylised_images_take_the_labels_of_their_source(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "gta5")
    stylised = tmp_path / "stylised"
    stylised.mkdir()
    np.save(stylised / "images.npy", 255 - np.load(folder / "images.npy"))
    pictures = Pictures("madan/gta5", [stylised], [folder])
    assert np.array_equal(pictures.image(1), 255 - np.load(folder / "images.npy")[1])
    assert np.array_equal(pictures.label(1), np.load(folder / "labels.npy")[1])


def test_pictures_never_open_labels_unless_asked(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "cityscapes")
    (folder / "labels.npy").unlink()
    (folder / "manifest.json").unlink()
    pictures = Pictures("cityscapes", [folder])
    assert pictures.image(2).shape == (*SIZE, 3)
    with refused(r"labels\.npy not found: make it with snakemake .*/certificate.json"):
        Pictures("cityscapes", [folder], [folder])


def test_images_are_mapped_not_read(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "gta5")
    assert all(isinstance(shard, np.memmap) for shard in Pictures("gta5", [folder]).shards)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "manifest.json"])
@pytest.mark.parametrize("part", [0, 0.5])
def test_damaged_prepared_file_is_named_with_the_way_out(drawn, tmp_path, name, part):
    [folder] = prepare(drawn, tmp_path, "gta5")
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with refused(f"{path} is damaged .*delete {folder} and run again"):
        Pictures("gta5", [folder], [folder])


def test_missing_manifest_is_named_with_the_way_out(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "gta5")
    (folder / "manifest.json").unlink()
    with refused(
        f"{folder / 'manifest.json'} not found: make it with snakemake {folder}/certificate.json"
    ):
        Pictures("gta5", [folder], [folder])


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", ".."])
def test_a_list_that_names_files_elsewhere_is_refused(drawn, tmp_path, name):
    [folder] = prepare(drawn, tmp_path, "gta5")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["items"][0]["name"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with refused("leads out of its folder"):
        Pictures("gta5", [folder], [folder]).called(0)
    with refused("leads out of its folder"):
        listed = datasets.Verified({name: ("", "")}, {})
        datasets.prepare(dataset("gta5", drawn / "gta5"), "train", 0, listed, folder)

"""Native layouts in, shards out, and one sentence for whatever is wrong with a dataset."""

import contextlib
import hashlib
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from madan import datasets, labels, miniature
from madan.config import Refusal
from madan.datasets import Pictures

SIZE = (32, 64)
COUNTS = {
    "gta5": {"train": 3, "val": 2},
    "synthia": {"train": 3},
    "cityscapes": {"train": 3, "val": 4},
}
# Which drawn scene stands first, second, ... in a split when its files are sorted by name.
ORDERS = {
    ("gta5", "train"): [0, 1, 2],
    ("gta5", "val"): [0, 1],
    ("synthia", "train"): [0, 1, 2],
    ("cityscapes", "train"): [0, 1, 2],
    ("cityscapes", "val"): [0, 2, 1, 3],
}
LAYOUTS = sorted(COUNTS)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The miniature world, three or so images a domain; not to be changed."""
    root = tmp_path_factory.mktemp("drawn")
    for domain, images in COUNTS.items():
        miniature.write(domain, root / domain, images=images, size=SIZE, seed=0)
    return root


@pytest.fixture
def own(drawn, tmp_path):
    """A copy of it that a test may damage."""
    return shutil.copytree(drawn, tmp_path / "own")


def prepare(root, out, layout, split="train", size=SIZE, n=1, order=None):
    folders = [out / str(k) for k in range(n)]
    for k in order or range(n):
        folders[k].mkdir(parents=True)
        datasets.prepare(layout, root / layout, split, size, (k, n), folders[k])
    return folders


def first(root, layout, split="train"):
    return datasets.items(layout, root / layout, split)[0]


def halve(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_sixteen_bits(path, red, green=0):
    """A 16-bit RGB PNG, written without the library that reads it."""
    planes = np.zeros((*red.shape, 3), ">u2")
    planes[..., 0], planes[..., 1] = red, green
    header = struct.pack(">IIBBBBB", red.shape[1], red.shape[0], 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in planes))
    chunks = (b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


@contextlib.contextmanager
def refused(match):
    with pytest.raises(Refusal, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


# --- Reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "split"), ORDERS)
def test_a_layout_gives_the_images_and_ids_that_were_drawn(drawn, domain, split):
    items = datasets.items(domain, drawn / domain, split)
    for item, index in zip(items, ORDERS[domain, split], strict=True):
        image, truth = datasets.read(domain, item)
        expected = miniature.draw(domain, split, index, seed=0, size=SIZE)
        assert np.array_equal(image, expected[0])
        assert np.array_equal(truth, expected[1])
        assert image.dtype == truth.dtype == np.uint8
        assert len(np.unique(truth)) > 3


def test_synthia_classes_are_the_red_of_all_sixteen_bits(own):
    item = first(own, "synthia")
    red = np.full(SIZE, 22)
    red[:10], red[10:20] = 3, 21
    write_sixteen_bits(item.label, red, green=np.full(SIZE, 300))
    _, truth = datasets.read("synthia", item)
    assert [np.unique(part).tolist() for part in (truth[:10], truth[10:20], truth[20:])] == [
        [0],
        [3],
        [labels.IGNORE],
    ]
    with Image.open(item.label) as opened:
        assert not np.asarray(opened)[..., 0].any(), "Pillow keeps the high byte, which is 0"


def test_a_label_of_grey_ids_reads_as_one_of_palette_indices(own):
    item = first(own, "gta5")
    _, before = datasets.read("gta5", item)
    with Image.open(item.label) as opened:
        assert opened.mode == "P"
        ids = np.asarray(opened)
    Image.fromarray(ids).save(item.label)
    _, after = datasets.read("gta5", item)
    assert np.array_equal(before, after)


def test_a_grey_or_transparent_image_is_read_in_three_channels(own):
    item = first(own, "gta5")
    for mode in ("L", "RGBA"):
        Image.new(mode, SIZE[::-1], "white").save(item.image)
        image, _ = datasets.read("gta5", item)
        assert image.shape == (*SIZE, 3)
        assert (image == 255).all()


# --- Shards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "sizes"), [(1, [4]), (3, [2, 1, 1]), (4, [1, 1, 1, 1])])
def test_shards_together_hold_every_item_once_in_turn(drawn, tmp_path, n, sizes):
    items = datasets.items("cityscapes", drawn / "cityscapes", "val")
    folders = prepare(drawn, tmp_path, "cityscapes", "val", n=n)
    for k, folder in enumerate(folders):
        images, truths = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
        assert len(images) == len(truths) == sizes[k]
        for row, item in enumerate(items[k::n]):
            image, truth = datasets.read("cityscapes", item)
            assert np.array_equal(images[row], image)
            assert np.array_equal(truths[row], truth)


def test_shards_are_the_same_bytes_whatever_the_order_they_are_made_in(drawn, tmp_path):
    forth = prepare(drawn, tmp_path / "forth", "gta5", n=3)
    back = prepare(drawn, tmp_path / "back", "gta5", n=3, order=[2, 0, 1])
    for one, other in zip(forth, back, strict=True):
        for name in ("images.npy", "labels.npy", "manifest.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_images_are_resized_bicubically_and_their_labels_by_nearest(
    drawn, tmp_path, layout
):
    size = (20, 24)
    [folder] = prepare(drawn, tmp_path, layout, size=size)
    images, truths = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    assert images.shape == (3, *size, 3)
    assert truths.shape == (3, *size)
    for row, item in enumerate(datasets.items(layout, drawn / layout, "train")):
        image, truth = datasets.read(layout, item)
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
    for row, item in enumerate(datasets.items(layout, drawn / layout, "val")):
        assert np.array_equal(truths[row], datasets.read(layout, item)[1])


def test_smaller_labels_are_padded_with_ignore_which_pictures_take_off(own, tmp_path):
    item = datasets.items("cityscapes", own / "cityscapes", "val")[2]
    for path in (item.image, item.label):
        with Image.open(path) as opened:
            opened.crop((0, 0, 40, 24)).save(path)
    _, truth = datasets.read("cityscapes", item)
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
    items = datasets.items("gta5", drawn / "gta5", "train")
    assert [entry["name"] for entry in manifest["items"]] == ["00001", "00002", "00003"]
    for entry, item in zip(manifest["items"], items, strict=True):
        assert entry["size"] == [16, 32]
        for key in ("image", "label"):
            whole = hashlib.sha256(getattr(item, key).read_bytes()).hexdigest()
            assert whole.startswith(entry[key])
            assert len(entry[key]) == 16
    truths = np.load(folder / "labels.npy")
    assert manifest["pixels"] == [int((truths == train_id).sum()) for train_id in range(19)]


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
    with refused(r"labels\.npy not found: make it with snakemake .*/digest"):
        Pictures("cityscapes", [folder], [folder])


def test_images_are_mapped_not_read(drawn, tmp_path):
    [folder] = prepare(drawn, tmp_path, "gta5")
    assert all(isinstance(shard, np.memmap) for shard in Pictures("gta5", [folder]).shards)


# --- What is wrong with a dataset -------------------------------------------------------------


def test_missing_folder_is_a_sentence(tmp_path):
    for layout in LAYOUTS:
        with refused(f"nowhere not found, expected a folder in the {layout} layout"):
            datasets.items(layout, tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("gta5", "split.mat"),
        ("synthia", "RGB"),
        ("synthia", "GT/LABELS"),
        ("cityscapes", "leftImg8bit/train"),
        ("cityscapes", "gtFine/train"),
    ],
)
def test_missing_part_of_a_layout_is_named(own, layout, missing):
    path = own / layout / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with refused(f"{missing} not found, expected"):
        datasets.items(layout, own / layout, "train")


def test_split_without_images_is_a_sentence(own):
    for folder in ("leftImg8bit", "gtFine"):
        (own / "cityscapes" / folder / "test").mkdir()
    for layout in ("gta5", "cityscapes"):
        with refused(f"{layout} holds no image of the test split"):
            datasets.items(layout, own / layout, "test")


@pytest.mark.parametrize("split", ["val", "test"])
def test_synthia_has_no_split_but_train(drawn, split):
    with refused(f"has no {split} split; use train"):
        datasets.items("synthia", drawn / "synthia", split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_without_label_is_named(own, layout):
    item = datasets.items(layout, own / layout, "train")[1]
    item.label.unlink()
    with refused(f"{item.label} not found, expected the label of image {item.image}"):
        datasets.items(layout, own / layout, "train")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_without_image_is_named(own, layout):
    item = datasets.items(layout, own / layout, "train")[1]
    item.image.unlink()
    with refused(f"{item.image} not found, expected the image of label {item.label}"):
        datasets.items(layout, own / layout, "train")


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_cut_short_is_named(own, layout, which):
    path = getattr(first(own, layout), which)
    halve(path)
    with refused(f"{path} cannot be read as an image .*cut short"):
        datasets.read(layout, first(own, layout))


def test_label_for_evaluation_cut_short_is_named(own, tmp_path):
    path = first(own, "cityscapes", "val").label
    path.write_bytes(path.read_bytes()[:20])
    with refused(f"{path} cannot be read as an image"):
        prepare(own, tmp_path / "out", "cityscapes", "val")


@pytest.mark.parametrize("layout", ["gta5", "cityscapes"])
def test_label_of_another_size_is_named_with_both_sizes(own, layout):
    item = first(own, layout)
    with Image.open(item.label) as opened:
        opened.resize((32, 16), Image.Resampling.NEAREST).save(item.label)
    with refused(f"{item.image} is 64x32 but its label {item.label} is 32x16"):
        datasets.read(layout, item)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
@pytest.mark.parametrize("layout", ["gta5", "cityscapes"])
def test_label_that_does_not_hold_eight_bit_ids_is_refused(own, layout, mode):
    item = first(own, layout)
    Image.new(mode, SIZE[::-1]).save(item.label)
    with refused(f"is a {mode} image, expected 8-bit ids"):
        datasets.read(layout, item)


def test_synthia_label_of_eight_bits_is_refused(own):
    item = first(own, "synthia")
    for label in (np.zeros(SIZE, np.uint8), np.zeros((*SIZE, 3), np.uint8)):
        Image.fromarray(label).save(item.label)
        with refused("has uint8 values of shape .*expected a 16-bit three-channel PNG"):
            datasets.read("synthia", item)


def test_synthia_label_of_one_channel_is_refused(own):
    item = first(own, "synthia")
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(item.label)
    with refused(r"has uint16 values of shape \(32, 64\), expected a 16-bit three-channel PNG"):
        datasets.read("synthia", item)


def test_synthia_id_that_no_class_has_is_refused_with_the_file(own):
    item = first(own, "synthia")
    write_sixteen_bits(item.label, np.full(SIZE, 300))
    with refused(f"{item.label}.*300"):
        datasets.read("synthia", item)


@pytest.mark.parametrize("part", [0, 20, 200])
def test_damaged_split_file_is_named(own, part):
    path = own / "gta5" / "split.mat"
    path.write_bytes(path.read_bytes()[:part])
    with refused(f"{path} .*trainIds .*release"):
        datasets.items("gta5", own / "gta5", "train")


def test_split_file_of_something_else_is_named(own):
    path = own / "gta5" / "split.mat"
    savemat(path, {"classes": np.zeros(3)})
    with refused(f"{path} .*trainIds .*release"):
        datasets.items("gta5", own / "gta5", "train")


def test_split_file_with_a_wrong_byte_is_named(own):
    path = own / "gta5" / "split.mat"
    savemat(path, {"trainIds": np.arange(1, 800)[:, None]}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with refused(f"{path} .*trainIds .*release"):
        datasets.items("gta5", own / "gta5", "train")


def test_split_file_may_hold_its_numbers_as_doubles(own):
    savemat(own / "gta5" / "split.mat", {"trainIds": np.array([[2.0], [3.0]])})
    items = datasets.items("gta5", own / "gta5", "train")
    assert [item.name for item in items] == ["00002", "00003"]


def test_more_shards_than_items_are_refused(drawn, tmp_path):
    with refused("fewer train images than the 4 shards asked for"):
        datasets.prepare("gta5", drawn / "gta5", "train", SIZE, (3, 4), tmp_path)


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
    with refused(f"{folder / 'manifest.json'} not found: make it with snakemake {folder}/digest"):
        Pictures("gta5", [folder], [folder])


@pytest.fixture(scope="module")
def bench(drawn, tmp_path_factory):
    """One item of each layout with its right reading, in a folder where files may be replaced."""
    own = shutil.copytree(drawn, tmp_path_factory.mktemp("bench") / "own")
    items = {layout: first(own, layout) for layout in LAYOUTS}
    return {layout: (item, datasets.read(layout, item)) for layout, item in items.items()}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LAYOUTS), st.sampled_from(["image", "label"]), st.floats(0, 1))
def test_file_cut_anywhere_is_refused_or_read_right(bench, layout, which, part):
    item, (image, truth) = bench[layout]
    path = getattr(item, which)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    try:
        seen = datasets.read(layout, item)
    except Refusal as refusal:
        assert str(path) in str(refusal)
    else:
        assert np.array_equal(seen[0], image)
        assert np.array_equal(seen[1], truth)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("layout", LAYOUTS)
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
                datasets.read(layout, item)
    finally:
        path.write_bytes(content)

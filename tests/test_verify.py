"""Verify: every kind of damage is found, said with its remedy, and kept from training."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import damage
import encoders
import numpy as np
import pytest
from conftest import dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import savemat

from madan import cli, labels
from madan.data import datasets, layouts, verify
from madan.data.layouts import LAYOUTS
from madan.data.verify import EXCLUSIONS, FIT, UNUSABLE
from madan.errors import Refusal
from madan.miniature import writer

SIZE = damage.SIZE
COUNT = 5
FILES = [("image", what) for what in damage.IMAGES] + [("label", what) for what in damage.LABELS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset without fault of every layout; not to be changed."""
    root = tmp_path_factory.mktemp("whole")
    return {
        layout: damage.small(
            layout, root / layout, **{"train": COUNT} | ({} if layout == "synthia" else {"val": 3})
        )
        for layout in damage.EVERY
    }


@pytest.fixture
def own(whole, tmp_path):
    """A copy of one of them that a test may damage."""
    return lambda layout: damage.copy(whole[layout], tmp_path / "the data" / layout)


def look(data, split="train", **more):
    return verify.verify(f"{data.layout}/{split}", data, split, **more)


def names(data, split="train"):
    return [item.name for item in layouts.items(data, split)]


def found(report, kind):
    return [finding for finding in report.findings if finding.kind == kind]


def kinds(report):
    return {finding.kind for finding in report.findings}


def only(data, count, size):
    """Leave so many pairs, of this size."""
    for k, item in enumerate(layouts.items(data, "train")):
        if k < count:
            damage.resize(item, data, size)
        else:
            item.image.unlink()
            item.label.unlink()


def prepared(data, report, split="train"):
    """Images and labels [N, ...] that training gets to see."""
    with tempfile.TemporaryDirectory() as out:
        verify.write(report, Path(out) / "items.json")
        verified = verify.read(Path(out) / "items.json")
        datasets.prepare(data, split, 0, verified, Path(out))
        manifest = json.loads((Path(out) / "manifest.json").read_text())
        arrays = [np.load(Path(out) / f"{which}.npy") for which in ("images", "labels")]
    return [entry["name"] for entry in manifest["items"]], *arrays


def read(data, name, split="train"):
    item = layouts.item(data, split, name)
    return datasets.read(item, layouts.meaning(data, split))


# --- What is fit -----------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("layout", damage.EVERY)
def test_a_dataset_without_fault_is_fit(whole, layout, quick):
    data = whole[layout]
    for split in layouts.splits(data)[: 1 if layout == "synthia" else 2]:
        report = look(data, split, quick=quick)
        assert (report.status, report.findings, report.excluded) == (FIT, [], {})
        assert sorted(report.pairs) == names(data, split)
        assert report.sizes == {"64x32": len(report.pairs)}


@pytest.mark.parametrize("layout", damage.EVERY)
def test_report_holds_hashes_of_files_and_shares_of_classes(whole, layout):
    data = whole[layout]
    report = look(data)
    truths = []
    for name, digests in report.pairs.items():
        _, truth, expected = read(data, name)
        assert digests == expected
        truths.append(truth)
    counts = np.bincount(np.ravel(truths), minlength=256) / np.size(truths)
    for k, name in enumerate(labels.CLASSES):
        assert report.shares[name] == pytest.approx(counts[k], abs=1e-5)
    assert report.shares["ignored"] == pytest.approx(counts[labels.IGNORE], abs=1e-5)
    assert sum(report.shares.values()) == pytest.approx(1, abs=1e-4)


# --- Damage to files -------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["gta5", "synthia", "bdd100k", "mine"])
@pytest.mark.parametrize(("which", "what"), FILES)
def test_damage_to_a_file_is_found_and_its_pair_left_out_or_kept(own, layout, which, what):
    data = own(layout)
    before = {name: read(data, name) for name in names(data)}
    name = names(data)[2]
    do, kind, shallow = (damage.IMAGES if which == "image" else damage.LABELS)[what]
    do(getattr(layouts.item(data, "train", name), which), data)
    report = look(data)
    assert [finding.name for finding in found(report, kind)] == ([name] if kind else [])
    lost = bool(kind) and verify.KINDS[kind].gravity == EXCLUSIONS
    assert report.excluded == ({name: kind} if lost else {})
    assert report.status == (EXCLUSIONS if lost else FIT)
    assert sorted(report.pairs) == [other for other in before if other != name or not lost]
    shown, images, truths = prepared(data, report)
    assert shown == list(report.pairs)
    for row, other in enumerate(shown):
        if other != name:
            assert np.array_equal(images[row], before[other].image)
            assert np.array_equal(truths[row], before[other].truth)
    quick = look(data, quick=True)
    if shallow and not (what == "another kind" and layout == "mine"):
        assert (quick.status, quick.excluded) == (report.status, report.excluded)
    else:
        assert quick.status == FIT


@pytest.mark.parametrize("suffix", [".webp", ".jpeg", ".tif", ".heic", ".AVIF"])
def test_images_of_another_suffix_are_listed(own, suffix):
    data = own("cityscapes")
    image = layouts.items(data, "train")[0].image
    image.rename(image.with_suffix(suffix))
    report = look(data)
    said = f"{image.with_suffix(suffix)}: its suffix is not .png"
    assert [finding.detail for finding in found(report, "suffix")] == [said]
    assert kinds(report) == {"no image", "suffix"}


def test_names_that_differ_in_case_are_brought_together(own):
    data = own("cityscapes")
    item = layouts.items(data, "train")[0]
    other = item.label.with_name(item.label.name.replace("altenbruck", "Altenbruck"))
    item.label.rename(other)
    report = look(data)
    assert len(found(report, "names differ in case")) == len(report.excluded) == 2
    both = " and ".join(sorted([item.name, item.name.replace("/alten", "/Alten")]))
    assert {finding.detail for finding in found(report, "names differ in case")} == {both}
    assert len(report.pairs) == COUNT - 1


def test_what_the_list_names_and_the_folders_lack_is_missing(own):
    data = own("gta5")
    savemat(data.root / "split.mat", {"trainIds": [[1], [2], [777]]})
    report = look(data)
    assert report.excluded == {"00777": "missing"}
    assert list(report.pairs) == ["00001", "00002"]


def test_id_of_a_class_is_judged_by_the_layout(own):
    data = own("synthia")
    item = layouts.items(data, "train")[0]
    damage.save_native(item.label, "sixteen bits", np.full(SIZE, 300))
    report = look(data)
    assert found(report, "unknown ids") == [
        ("unknown ids", item.name, "300 (100 %): 2048 pixels of 2048")
    ]
    [summary] = found(report, "unknown values")
    assert summary.detail == f"300: 20 % of all pixels, in 1 of 5 labels, such as {item.name}"


def test_class_ids_that_lost_their_bits_are_no_ids(own):
    data = own("synthia")
    for item in layouts.items(data, "train"):
        with Image.open(item.label) as opened:
            opened.convert("RGB").save(item.label)
    report = look(data)
    assert set(report.excluded.values()) == {"not ids"}
    assert report.status == UNUSABLE
    assert {"not ids", "nothing left"} == kinds(report)


# --- Damage to pairs and splits ----------------------------------------------------------------


def test_pairs_of_another_size_are_kept_and_named(own):
    data = own("synthia")
    item = layouts.items(data, "train")[1]
    damage.resize(item, data)
    report = look(data)
    assert report.findings == [("odd size", item.name, "40x24")]
    assert (report.status, report.sizes) == (FIT, {"40x24": 1, "64x32": COUNT - 1})
    _, images, truths = prepared(data, report)
    assert images.shape == (COUNT, *SIZE, 3) and truths.shape == (COUNT, *SIZE)


def test_images_of_the_wrong_synthia_are_refused(own):
    data = own("synthia")
    only(data, 1, (720, 960))
    report = look(data, quick=True)
    [finding] = found(report, "wrong variant")
    assert "960x720" in finding.detail and "SYNTHIA" in finding.detail
    assert report.status == UNUSABLE


def test_known_damage_of_the_release_is_left_out_unless_asked_for(own):
    data = own("gta5")
    damaged = ["15188", "15617", "17705", "20801"]
    damage.renumber(data, "train", dict(zip(names(data), damaged, strict=False)))
    savemat(data.root / "split.mat", {"trainIds": [[int(n)] for n in damaged] + [[5]]})
    report = look(data)
    assert report.excluded == {name: LAYOUTS["gta5"].damaged[name] for name in damaged}
    assert {finding.kind for finding in report.findings} == {"known damage"}
    assert (report.status, list(report.pairs)) == (EXCLUSIONS, ["00005"])
    kept = look(data.model_copy(update={"known_damage": "keep"}))
    assert (kept.status, sorted(kept.pairs)) == (FIT, sorted([*damaged, "00005"]))


def test_known_damage_is_that_of_the_released_numbers():
    expected = {15188, 15617, 17705, *range(20801, 20861)}
    assert {int(name) for name in LAYOUTS["gta5"].damaged} == expected
    assert all(len(name) == 5 for name in LAYOUTS["gta5"].damaged)


def test_what_params_exclude_is_left_out_with_its_reason_and_not_looked_at(own):
    data = own("cityscapes")
    item = layouts.items(data, "train")[0]
    damage.cut(item.image, data)
    reason = "the wiper is in view"
    report = look(data.model_copy(update={"exclude": {item.name: reason}}))
    assert report.excluded == {item.name: reason}
    assert report.findings == [("excluded", item.name, reason)]
    assert report.status == EXCLUSIONS


@pytest.mark.parametrize("layout", ["cityscapes", "bdd100k", "camvid", "mine"])
def test_an_image_of_val_is_left_out_of_train_and_kept_in_val(own, layout):
    data = own(layout)
    item = layouts.items(data, "val")[0]
    twin = layouts.item(data, "train", item.name)
    for here, there in zip(item.files, twin.files, strict=True):
        there.parent.mkdir(exist_ok=True)
        shutil.copy(here, there)
    report = look(data)
    assert report.excluded == {item.name: "also in val or test"}
    assert len(report.pairs) == COUNT
    assert look(data, "val").status == FIT


def test_a_split_without_labels_is_images_alone_where_none_are_needed(own):
    data = own("cityscapes")
    shutil.rmtree(data.root / "gtFine/train")
    assert look(data).status == verify.UNUSABLE
    report = look(data, images_alone=True)
    assert report.status == verify.FIT and kinds(report) - {"count"} == {"no labels"}


def test_another_image_of_the_same_name_in_val_stays_in_train(own):
    data = own("cityscapes")
    item = layouts.items(data, "val")[0]
    twin, other = layouts.item(data, "train", item.name), layouts.items(data, "train")[0]
    for theirs, there in zip(other.files, twin.files, strict=True):
        there.parent.mkdir(exist_ok=True)
        shutil.copy(theirs, there)
    report = look(data)
    assert report.excluded == {}
    assert item.name in report.pairs


def test_an_exclusion_that_names_no_pair_is_reported(own):
    data = own("cityscapes")
    exclude = {names(data)[0]: "blurred", names(data, "val")[0]: "of val", "tpyo": "?"}
    report = look(data.model_copy(update={"exclude": exclude}))
    assert [f.detail for f in report.findings if f.kind == "excluded in vain"] == ["tpyo"]
    assert report.excluded == {names(data)[0]: "blurred"}


def test_a_blank_label_counts_for_nothing_in_evaluation_but_loses_no_image(own):
    data = own("cityscapes")
    item = layouts.items(data, "val")[0]
    damage.constant(item.label, data, labels.IGNORE)
    report = look(data, "val")
    assert report.findings == [("unscored", item.name, found(report, "unscored")[0].detail)]
    assert (report.status, len(report.pairs)) == (FIT, 3)


def test_a_split_to_be_scored_must_be_complete(own):
    data = own("cityscapes")
    item = layouts.items(data, "val")[0]
    damage.cut(item.image, data)
    report = look(data, "val")
    assert kinds(report) == {"unreadable", "incomplete"}
    assert report.status == UNUSABLE
    named = data.model_copy(update={"exclude": {item.name: "lost"}})
    assert look(named, "val").status == EXCLUSIONS


@pytest.mark.parametrize("layout", damage.EVERY)
def test_missing_folder_is_unusable(whole, tmp_path, layout):
    data = whole[layout].model_copy(update={"root": tmp_path / "nowhere"})
    report = look(data)
    [finding] = report.findings
    assert finding.kind == "not there" and "nowhere not found" in finding.detail
    assert (report.status, report.pairs) == (UNUSABLE, {})


@pytest.mark.parametrize("part", ["images", "labels"])
def test_missing_part_is_unusable(own, part):
    data = own("gta5")
    shutil.rmtree(data.root / part)
    report = look(data)
    assert [f.kind for f in report.findings if f.kind != "count"] == ["not there"]
    assert f"{part} not found" in report.findings[0].detail
    assert report.status == UNUSABLE


def test_downloads_that_wait_to_be_extracted_are_pointed_at(tmp_path):
    data = dataset("cityscapes", tmp_path)
    with zipfile.ZipFile(tmp_path / "leftImg8bit_trainvaltest.zip", "w") as archive:
        archive.writestr("readme", "x" * 1000)
    [finding] = look(data).findings
    assert "leftImg8bit_trainvaltest.zip lie there: extract them." in finding.detail
    content = (tmp_path / "leftImg8bit_trainvaltest.zip").read_bytes()
    (tmp_path / "gtFine_trainvaltest.zip").write_bytes(content[: len(content) // 2])
    [finding] = look(data).findings
    assert "download gtFine_trainvaltest.zip again, it is cut short" in finding.detail
    assert "leftImg8bit_trainvaltest.zip again" not in finding.detail


@pytest.mark.parametrize("part", [0, 100, 200])
def test_damaged_list_of_splits_is_unusable(own, part):
    data = own("gta5")
    path = data.root / "split.mat"
    path.write_bytes(path.read_bytes()[:part])
    report = look(data)
    [finding] = report.findings
    assert finding.kind == "not there" and str(path) in finding.detail
    assert report.status == UNUSABLE


def test_missing_list_of_splits_is_said_and_replaced(own):
    data = own("gta5")
    (data.root / "split.mat").unlink()
    report = look(data)
    assert kinds(report) == {"split list"}
    assert (report.status, len(report.pairs)) == (FIT, COUNT + 3)


def test_fewer_pairs_than_the_release_has_are_said(own):
    data = own("camvid")
    only(data, 2, (360, 480))
    report = look(data)
    assert report.findings == [("count", "", "2 pairs, the release has 367")]
    assert report.status == FIT


def test_shares_of_a_release_are_not_compared_with_its_own_counts(own):
    data = own("synthia")
    only(data, 1, (760, 1280))
    shared = data.model_copy(update={"splits": {"train": 0.6, "val": 0.4}})
    assert len(names(shared)) == 1
    assert look(shared, quick=True).findings == []
    given = look(data, quick=True)
    assert given.findings == [("count", "", "1 pairs, the release has 9400")]


def test_nothing_usable_is_unusable(own):
    data = own("gta5")
    for item in layouts.items(data, "train"):
        item.label.write_bytes(b"")
    report = look(data)
    assert kinds(report) == {"unreadable", "nothing left"}
    assert (report.status, report.pairs) == (UNUSABLE, {})


def test_names_of_any_script_are_verified_and_shown_as_they_are(own, capsys):
    data = own("mine")
    wild = ["a b", "naïve", "街道", "[/b] x", "[red] y"]
    damage.renumber(data, "train", dict(zip(names(data), wild, strict=True)))
    for name in wild[:4]:
        damage.cut(layouts.item(data, "train", name).image, data)
    report = look(data)
    assert sorted(report.excluded) == sorted(wild[:4])
    assert list(report.pairs) == wild[4:]
    verify.show(report)
    said = capsys.readouterr().out
    assert all(name.split()[-1] in said for name in wild[:4])
    assert "[/b]" in said


def test_an_undecodable_name_is_verified_shared_out_and_shown(own, capsys):
    data = own("gta5").model_copy(update={"splits": {"train": 1.0}})
    name = os.fsdecode(b"caf\xe9")
    damage.renumber(data, "train", {names(data)[0]: name})
    damage.cut(layouts.item(data, "train", name).image, data)
    report = look(data)
    assert report.excluded == {name: "unreadable"}
    verify.show(report)
    assert r"caf\udce9" in capsys.readouterr().out


# --- Labels of another kind, and labels that were changed ----------------------------------------


def restored(data, change, split="train"):
    """Write every label of a split anew: change(path, ids)."""
    for item in layouts.items(data, split):
        with Image.open(item.label) as opened:
            ids = np.array(opened)
        change(item.label, ids)


def as_kind(kind):
    """A function that writes a label of Cityscapes' ids as one of another kind."""
    native_ids = writer.native_ids(kind)
    table = LAYOUTS["cityscapes"].table
    return lambda path, ids: Image.fromarray(native_ids[table[ids]]).save(path)


@pytest.mark.parametrize(
    ("layout", "kind", "named"),
    [
        ("cityscapes", "bdd100k", "train ids"),
        ("gta5", "bdd100k", "train ids"),
        ("cityscapes", "synthia", "SYNTHIA ids"),
        ("gta5", "synthia", "SYNTHIA ids"),
        ("cityscapes", "camvid", "CamVid ids"),
    ],
)
def test_ids_of_another_kind_are_named_with_both_numbers(own, layout, kind, named):
    data = own(layout)
    restored(data, as_kind(kind))
    report = look(data)
    [finding] = found(report, "other ids")
    said = re.fullmatch(
        rf"these are {named}, as it seems: as ids of {layout} (\d+) % of pixels are not counted "
        rf"and (\d+) % are of other classes than expected, as {named} (\d+) % and (\d+) %",
        finding.detail,
    )
    assert said and int(said[1]) > 60 and int(said[2]) > int(said[4]) + 15
    assert report.status == UNUSABLE
    [shares] = found(report, "shares")
    assert re.search(r"not counted [\d.]+ %, published 11\.\d %", shares.detail)


@pytest.mark.parametrize(("layout", "kind"), [("bdd100k", "Cityscapes label ids")])
def test_label_ids_under_a_train_ids_name_are_named_too(own, layout, kind):
    data = own(layout)
    table = LAYOUTS["cityscapes"].table
    back = writer.native_ids("cityscapes")
    restored(data, lambda path, ids: Image.fromarray(back[ids]).save(path))
    report = look(data)
    assert kind in found(report, "other ids")[0].detail
    assert table[back[0]] == 0 and report.status == UNUSABLE


def test_one_label_of_another_kind_among_others_is_left_out(own):
    data = own("cityscapes")
    item = layouts.items(data, "train")[2]
    with Image.open(item.label) as opened:
        ids = np.array(opened)
    as_kind("bdd100k")(item.label, ids)
    report = look(data)
    assert report.excluded == {item.name: "ids of another kind"}
    assert "train ids, as it seems" in found(report, "ids of another kind")[0].detail


@pytest.mark.parametrize("size", [(32, 64), (64, 128)])
@pytest.mark.parametrize("layout", ["gta5", "cityscapes", "bdd100k", "camvid"])
def test_drawn_streets_are_of_their_own_kind_however_few(tmp_path, layout, size):
    writer.write(layout, tmp_path / "1", images={"train": 24}, size=size, seed=5)
    splits = {"splits": "all"} if layout == "gta5" else {}
    data = dataset(layout, tmp_path / "1", **splits)
    assert look(data).findings == []
    for name in names(data)[:23]:
        item = layouts.item(data, "train", name)
        item.image.unlink()
        item.label.unlink()
    assert look(data).findings == []


def test_blank_labels_of_a_test_split_are_of_no_kind(own):
    """Cityscapes' test labels hold ids 0 to 3, which as train ids would be streets."""
    data = own("cityscapes")
    rng = np.random.default_rng(0)
    restored(
        data,
        lambda path, ids: Image.fromarray(
            rng.choice([0, 1, 2, 3, 4, 5, 6], ids.shape).astype(np.uint8)
        ).save(path),
        "val",
    )
    report = look(data, "val")
    assert kinds(report) == {"unscored"}


def optimised(path, ids, rng=np.random.default_rng(3)):
    """Grey becomes a palette, the most frequent first, and no colour changes."""
    encoders.grey_palette(path, ids, rng)


def test_labels_that_an_optimiser_renumbered_are_certified_with_the_same_pixels(own):
    for layout in ("gta5", "cityscapes", "bdd100k"):
        data = own(layout)
        before = prepared(data, look(data))
        if layout == "gta5":
            table = LAYOUTS["gta5"].table
            rng = np.random.default_rng(1)
            restored(data, lambda p, i: encoders.renumbered_palette(p, i, table, rng))  # noqa: B023
        else:
            restored(data, optimised)
        report = look(data)
        assert (report.status, kinds(report)) == (FIT, {"read by colour"})
        after = prepared(data, report)
        assert before[0] == after[0]
        assert np.array_equal(before[1], after[1]) and np.array_equal(before[2], after[2])


def test_palettes_that_contradict_each_other_are_refused(own):
    data = own("bdd100k")
    colours = np.random.default_rng(0).permutation(200)[:20, None] + [[9, 30, 55]]

    def foreign(path, ids, order=np.arange(20)):
        encoders.png(path, np.minimum(ids, 19), 8, encoders.PALETTE, colours[order])

    restored(data, lambda path, ids: foreign(path, np.where(ids > 18, 0, ids)))
    report = look(data)
    assert (report.status, kinds(report)) == (FIT, {"foreign palette"})
    last = layouts.items(data, "train")[-1]
    with Image.open(last.label) as opened:
        ids = np.array(opened)
    foreign(last.label, ids, np.roll(np.arange(20), 1))
    report = look(data)
    assert report.status == UNUSABLE
    [finding] = found(report, "palettes differ")
    assert re.fullmatch(r"id \d+ is \(.*\) in .* and \(.*\) in .*", finding.detail)
    assert last.name in finding.detail


def test_shares_of_a_split_are_set_beside_the_published_ones(own):
    data = own("cityscapes")
    for item in layouts.items(data, "train")[:1]:
        damage.resize(item, data, (1024, 2048))
    for item in layouts.items(data, "train")[1:]:
        item.image.unlink()
        item.label.unlink()
    [finding] = found(look(data), "shares")
    assert finding.detail.startswith(
        "road 99.6 %, published 32.6 %; building 0 %, published 20.2 %"
    )


def test_unknown_ids_are_listed_with_values_shares_and_an_example(own, capsys):
    data = own("cityscapes")
    first, second, *_ = layouts.items(data, "train")
    for item, count in ((first, 512), (second, 256)):
        with Image.open(item.label) as opened:
            ids = np.array(opened)
        ids.ravel()[:count] = 77
        ids[-1, -1] = 99
        Image.fromarray(ids).save(item.label)
    report = look(data)
    assert report.excluded == {first.name: "unknown ids", second.name: "unknown ids"}
    details = [finding.detail for finding in found(report, "unknown ids")]
    assert details[0] == "77 (25 %), 99 (0.0488 %): 513 pixels of 2048"
    assert [finding.detail for finding in found(report, "unknown values")] == [
        f"77: 7.5 % of all pixels, in 2 of 5 labels, such as {first.name}",
        f"99: 0.0195 % of all pixels, in 2 of 5 labels, such as {first.name}",
    ]
    verify.show(report)
    assert "77: 7.5 % of all pixels" in capsys.readouterr().out


def test_unknown_colours_are_listed_and_long_lists_are_cut(own):
    data = own("mine")
    item = layouts.items(data, "train")[0]
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[0, :30, 0] = np.arange(1, 31)
    pixels[1:3] = (9, 8, 7)
    Image.fromarray(pixels).save(item.label)
    values = found(look(data), "unknown values")
    assert len(values) == verify.VALUES + 1
    assert values[-1].detail == "and 11 more" or values[0].detail == "and 11 more"
    assert any(value.detail.startswith("(9, 8, 7): 1.25 % of all pixels") for value in values)


def test_what_a_layout_ignores_otherwise_is_not_unknown(own):
    data = own("mine")
    item = layouts.items(data, "train")[0]
    with Image.open(item.label) as opened:
        pixels = np.array(opened)
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(item.label)
    assert look(data).excluded == {item.name: "unknown ids"}
    lenient = damage.OWN.model_copy(update={"otherwise": "ignore"})
    report = look(data.model_copy(update={"own": lenient}))
    assert (report.status, report.excluded) == (FIT, {})
    assert read(data.model_copy(update={"own": lenient}), item.name).truth[0, 0] == labels.IGNORE


# --- Files of a file system that fails, and files of another suffix ------------------------------


@pytest.mark.parametrize("which", ["image", "label"])
@pytest.mark.parametrize("quick", [False, True])
def test_a_file_that_cannot_be_read_for_the_moment_makes_verify_fail(
    own, tmp_path, monkeypatch, which, quick
):
    data, journal = own("cityscapes"), tmp_path / "journal"
    whole = look(data, quick=quick)
    item = layouts.items(data, "train")[1]
    opened = Path.open

    def fail(path, *words, **more):
        if path == getattr(item, which):
            raise OSError(24, "Too many open files", str(path))
        return opened(path, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        report = look(data, journal=None if quick else journal, key="k", quick=quick)
    assert report.status == UNUSABLE
    assert report.excluded == {} and item.name not in report.pairs
    [finding] = found(report, "not readable now")
    assert (finding.name, "Too many open files" in finding.detail) == (item.name, True)
    # The journal has not noted it, so the next run reads it.
    assert look(data, journal=None if quick else journal, key="k", quick=quick) == whole


def test_a_folder_that_cannot_be_opened_makes_verify_fail(own, monkeypatch):
    data = own("cityscapes")
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("leftImg8bit/train/altenbruck"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    report = look(data)
    assert (report.status, report.pairs) == (UNUSABLE, {})
    assert "altenbruck is a folder that cannot be opened" in report.findings[0].detail
    assert report.findings[0].kind == "not readable now"


@pytest.mark.parametrize("split", ["val", "train"])
def test_pairs_of_val_under_another_suffix_are_an_error(own, split):
    data = own("bdd100k")
    item = layouts.items(data, split)[0]
    item.image.rename(item.image.with_suffix(".jpeg"))
    item.label.rename(item.label.with_suffix(".tif"))
    report = look(data, split)
    assert len(found(report, "suffix")) == 2
    if split == "val":
        assert [f.detail for f in found(report, "not read")] == [f"1 pairs, such as {item.name}"]
    assert report.status == (UNUSABLE if split == "val" else FIT)


def test_suffixes_in_another_case_are_certified_like_the_others(own):
    data = own("cityscapes")
    whole = look(data, "val")
    for item in layouts.items(data, "val"):
        item.image.rename(item.image.with_suffix(".PNG"))
    assert look(data, "val") == whole


def test_odd_files_are_reported(own):
    data = own("cityscapes")
    folder = layouts.items(data, "train")[0].image.parent
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to("nowhere")
    report = look(data)
    assert (report.status, kinds(report)) == (FIT, {"odd file"})
    assert [f.detail.split(": ")[1] for f in found(report, "odd file")] == [
        "is a link that leads nowhere", "is a pipe",
    ]  # fmt: skip


def test_a_quick_look_says_what_it_did_not_look_at(own, capsys):
    verify.show(look(own("cityscapes"), quick=True))
    said = " ".join(capsys.readouterr().out.split())
    assert "Not looked at: pixels, checksums, ids and colours of labels, palettes" in said
    verify.show(look(own("gta5")))
    assert "Not looked at" not in capsys.readouterr().out


# --- Whatever is wrong, in any combination -------------------------------------------------------


one_pair = st.tuples(
    st.sampled_from(["", "", *damage.IMAGES]),
    st.sampled_from(["", "", *damage.LABELS]),
    st.booleans(),
)
GRAVE = {
    what for what, (_, kind, _) in (damage.IMAGES | damage.LABELS).items()
    if kind and verify.KINDS[kind].gravity == EXCLUSIONS
}  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    layout=st.sampled_from(damage.EVERY),
    plan=st.lists(one_pair, min_size=COUNT, max_size=COUNT),
    jobs=st.sampled_from([1, 3]),
)
def test_exactly_the_damaged_pairs_are_left_out_whatever_happened(whole, layout, plan, jobs):
    with tempfile.TemporaryDirectory() as root:
        data = damage.copy(whole[layout], Path(root) / "data")
        every = names(data)
        before = {name: read(data, name) for name in every}
        lost, gone = set(), set()
        for name, (of_image, of_label, odd) in zip(every, plan, strict=True):
            item = layouts.item(data, "train", name)
            if odd:
                damage.resize(item, data)
            if of_image:
                damage.IMAGES[of_image].do(item.image, data)
            if of_label:
                damage.LABELS[of_label].do(item.label, data)
            smaller = odd and of_label in ("blank", "one class")  # than the image is now
            if smaller or {of_image, of_label} & GRAVE:
                lost.add(name)
            if {of_image, of_label} <= {"gone", "another suffix"} and layout != "gta5":
                gone.add(name)
        report = look(data, jobs=jobs)
        assert set(report.excluded) == lost - gone
        assert set(report.pairs) == set(every) - lost
        kept = set(every) - lost
        expected = UNUSABLE if not kept else EXCLUSIONS if lost - gone else FIT
        assert report.status == expected
        assert all(verify.KINDS[finding.kind].remedy for finding in report.findings)
        assert json.loads(verify.as_json(report))["status"] == verify.STATUS[expected]
        if kept:
            shown, images, truths = prepared(data, report)
            assert shown == sorted(kept)
            for row, name in enumerate(shown):
                if plan[every.index(name)] == ("", "", False):
                    assert np.array_equal(images[row], before[name].image)
                    assert np.array_equal(truths[row], before[name].truth)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_bytes_in_a_file_are_found_or_harmless(whole, data):
    layout = data.draw(st.sampled_from(damage.EVERY))
    item = layouts.items(whole[layout], "train")[0]
    path = getattr(item, data.draw(st.sampled_from(["image", "label"])))
    right = path.read_bytes()
    content = bytearray(right)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        path.write_bytes(content)
        for quick in (True, False):
            report = look(whole[layout], quick=quick)
            assert report.status in (FIT, EXCLUSIONS)
            assert {*report.pairs, *report.excluded} == set(names(whole[layout]))
        if item.name in report.pairs:
            prepared(whole[layout], report)
    finally:
        path.write_bytes(right)


def test_every_kind_of_finding_is_met_by_a_test_here():
    text = Path(__file__).read_text() + Path(damage.__file__).read_text()
    assert [kind for kind in verify.KINDS if f'"{kind}"' not in text] == []


# --- The same report, however it was made --------------------------------------------------------


def hurt(data):
    """Some damage of several kinds."""
    first, second, third, *_ = layouts.items(data, "train")
    damage.cut(first.image, data)
    second.label.unlink()
    damage.constant(third.label, data, damage.ROAD)
    return data


def test_the_number_of_workers_changes_nothing(own):
    data = hurt(own("gta5"))
    assert look(data, jobs=1) == look(data, jobs=4)


class Counted:
    """`verify.inspect`, counting, and interrupted at the n-th pair."""

    def __init__(self, monkeypatch, stop=None):
        self.seen, self.stop, self.inspect = [], stop, verify.inspect
        monkeypatch.setattr(verify, "inspect", self)

    def __call__(self, item, *words):
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append(item.name)
        return self.inspect(item, *words)


def test_an_interrupted_run_goes_on_where_it_was(own, tmp_path, monkeypatch):
    data, journal = hurt(own("gta5")), tmp_path / "state" / "journal"
    whole = look(data)
    with monkeypatch.context() as patch:
        first = Counted(patch, stop=3)
        with pytest.raises(KeyboardInterrupt):
            look(data, journal=journal, key="k")
    second = Counted(monkeypatch)
    assert look(data, journal=journal, key="k") == whole
    assert (first.seen, second.seen) == (names(data)[:3], names(data)[3:])


def test_a_changed_file_or_another_key_is_looked_at_again(own, tmp_path, monkeypatch):
    data, journal = hurt(own("gta5")), tmp_path / "journal"
    look(data, journal=journal, key="k")
    first, *_, last = layouts.items(data, "train")
    shutil.copy(last.image, first.image)
    last.label.unlink()
    counted = Counted(monkeypatch)
    report = look(data, journal=journal, key="k")
    assert counted.seen == [first.name, last.name]
    assert first.name in report.pairs and report.excluded[last.name] == "no label"
    counted.seen.clear()
    assert look(data, journal=journal, key="other") == report
    assert counted.seen == names(data)


@pytest.fixture(scope="module")
def journalled(whole, tmp_path_factory):
    data = hurt(damage.copy(whole["gta5"], tmp_path_factory.mktemp("journalled") / "data"))
    journal = data.root.parent / "journal"
    return data, look(data, journal=journal, key="k"), journal.read_bytes(), journal


@settings(max_examples=40, deadline=None)
@example(part=1.0, rubbish=b"null\n{}\n")
@given(part=st.floats(0, 1), rubbish=st.sampled_from([b"", b"\xff\xfe", b"[1]\n", b"null\n{}\n"]))
def test_a_journal_cut_anywhere_gives_the_same_report(journalled, part, rubbish):
    data, report, content, journal = journalled
    journal.write_bytes(content[: int(part * len(content))] + rubbish)
    assert look(data, journal=journal, key="k") == report


def test_a_killed_run_goes_on_with_the_same_report(own, tmp_path):
    data = hurt(own("cityscapes"))
    journal = tmp_path / "journal"
    code = f"""
import time
from pathlib import Path
from conftest import dataset
from madan.data import verify
inspect = verify.inspect
def slow(*words):
    time.sleep(0.2)
    return inspect(*words)
verify.inspect = slow
data = dataset("cityscapes", Path({str(data.root)!r}))
verify.verify("x", data, "train", journal=Path({str(journal)!r}), key="k")
"""
    tests = Path(__file__).parent
    with subprocess.Popen([sys.executable, "-c", code], cwd=tests) as running:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if journal.exists() and len(journal.read_text().splitlines()) > 2:
                break
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    noted = journal.read_text().splitlines()
    assert 2 < len(noted) < 1 + COUNT
    assert look(data, journal=journal, key="k") == look(data)


# --- What prepare reads ------------------------------------------------------------------------


def test_what_verify_writes_is_what_prepare_reads(own, tmp_path):
    data = hurt(own("gta5"))
    report = look(data)
    verify.write(report, tmp_path / "items.json")
    assert verify.read(tmp_path / "items.json") == (report.pairs, report.excluded)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"pairs": {}}', '{"pairs": {"a": ["b"]}, "excluded": {}}']
)
def test_damaged_list_of_pairs_is_refused(tmp_path, text):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(Refusal, match=r"items\.json is damaged"):
        verify.read(tmp_path / "items.json")
    (tmp_path / "items.json").unlink()
    with pytest.raises(Refusal, match=r"items\.json not found: make it with snakemake"):
        verify.read(tmp_path / "items.json")


# --- The command -----------------------------------------------------------------------------


@pytest.fixture
def command(raw, own, tmp_path, monkeypatch, capfd):
    """`madan` in a project whose GTA5 and Cityscapes are small ones, in a folder with a space."""
    datasets = {layout: own(layout) for layout in ("gta5", "cityscapes")}
    for layout, data in datasets.items():
        root = str(data.root.relative_to(tmp_path))
        raw["scales"]["paper"]["domains"][layout] |= {"root": root, "shards": 1, "splits": "given"}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(raw | {"scale": "paper"}, file)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["madan", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capfd.readouterr()
        message = left.value.code if isinstance(left.value.code, str) else ""
        return 1 if message else left.value.code or 0, message + said.out + said.err

    run.data = datasets
    return run


def test_the_command_ends_with_the_status(command):
    gta5 = command.data["gta5"]
    code, said = command("verify", "gta5/train")
    assert code == 0 and "gta5/train (gta5): fit; 5 pairs kept, 0 left out" in said
    damage.cut(gta5.root / "images/00002.png", gta5)
    code, said = command("verify", "gta5/train")
    assert code == 1 and "usable with exclusions; 4 pairs kept, 1 left out" in said
    shutil.rmtree(gta5.root / "labels")
    code, said = command("verify", "gta5/train")
    assert code == 2 and "unusable" in said


def test_the_worst_split_decides(command):
    cityscapes = command.data["cityscapes"]
    damage.cut(layouts.items(cityscapes, "val")[0].image, cityscapes)
    code, said = command("verify", "gta5/train", "cityscapes")
    assert code == 2
    assert [f"({word})" in said for word in ("gta5", "cityscapes")] == [True, True]
    assert "cityscapes/train" in said and "cityscapes/val" in said
    assert command("verify", "gta5/train", "cityscapes/train")[0] == 0


def test_the_report_is_shown_as_a_table_and_kept_as_json(command):
    gta5 = hurt(command.data["gta5"])
    code, said = command("verify", "gta5/train")
    report = json.loads(Path("results/verify/paper/gta5/train.json").read_text())
    assert code == 1
    assert (report["status"], report["pairs"]) == ("usable with exclusions", 3)
    assert report["excluded"] == {"00001": "unreadable", "00002": "no label"}
    assert {f["kind"] for f in report["findings"]} == {"unreadable", "no label", "one class"}
    for finding in report["findings"]:
        assert finding["name"] in names(gta5)
        assert finding["remedy"] == verify.KINDS[finding["kind"]].remedy
        for word in (finding["kind"], finding["name"], *finding["remedy"].split()):
            assert word in said
    assert "64x32" in report["sizes"] and report["shares"]["road"] > 0
    assert "the data/gta5" in str(report["findings"])


def test_an_unusable_split_is_not_certified_and_what_stood_there_is_taken_away(command):
    assert command("verify", "gta5/train")[0] == 0
    folder = Path("data/verified/paper/gta5/train")
    assert sorted(path.name for path in folder.iterdir()) == ["certificate.json", "items.json"]
    gta5 = command.data["gta5"]
    for item in layouts.items(gta5, "train"):
        item.label.write_bytes(b"")
    assert command("verify", "gta5/train")[0] == 2
    assert not folder.exists()
    report = json.loads(Path("results/verify/paper/gta5/train.json").read_text())
    assert (report["status"], report["pairs"]) == ("unusable", 0)
    assert not list(Path("state").rglob("*.jsonl"))


def test_a_quick_look_leaves_no_trace(command):
    damage.flip(command.data["gta5"].root / "images/00002.png", command.data["gta5"])
    assert command("verify", "gta5/train", "--quick")[0] == 0
    # But for what the digests of the package's code are, which changes no answer.
    assert not Path("results").exists() and os.listdir("state") == ["code"]
    assert command("verify", "gta5/train")[0] == 1


def test_prepare_leaves_out_what_verify_left_out(command):
    hurt(command.data["gta5"])
    command("verify", "gta5/train")
    assert command("prepare", "gta5/train/0")[0] == 0
    [manifest] = Path("data/prepared/paper/gta5").rglob("manifest.json")
    prepared = json.loads(manifest.read_text())
    assert [entry["name"] for entry in prepared["items"]] == ["00003", "00004", "00005"]
    assert prepared["excluded"] == {"00001": "unreadable", "00002": "no label"}


def test_prepare_without_verify_says_what_to_do(command):
    code, said = command("prepare", "gta5/train/0")
    assert code == 1
    assert "it is not made yet. Make it: snakemake data/verified/paper/gta5/train/" in said


def test_a_file_changed_since_verify_is_refused_by_prepare(command):
    command("verify", "gta5/train")
    images = command.data["gta5"].root / "images"
    shutil.copy(images / "00001.png", images / "00002.png")
    code, said = command("prepare", "gta5/train/0")
    assert code == 1
    assert "00002.png" in said and "changed since it was verified" in said
    assert not list(Path("data").rglob("*.npy"))


@pytest.mark.parametrize("words", [("gtaa",), ("gta5/trian",), ("both",)])
def test_an_unknown_domain_or_split_is_refused(command, words):
    code, said = command("verify", *words)
    assert code == 2
    assert "allowed:" in said and "Traceback" not in said


def test_a_dataset_that_is_not_there_does_not_hide_the_next(command):
    gta5 = command.data["gta5"].root
    gta5.rename(gta5.with_name("elsewhere"))
    code, said = command("verify")
    assert code == 2
    for name in ("gta5", "synthia", "bdd100k"):
        assert f"data/{name}" in said or f"data/raw/{name}" in said
    assert "cityscapes/train (cityscapes): fit" in said


@pytest.fixture
def narrow(tmp_path):
    """Mount a file system at a folder of the project."""
    mounted = []

    def mount(name, *options):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "small", str(folder)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("mounting a small file system needs root")
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("this machine does not let root mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_sentence_leaves_nothing_half_written_and_the_next_run_completes(
    command, narrow
):
    command("verify", "gta5/train")
    folder = narrow("data/prepared", "size=64k")
    code, said = command("prepare", "gta5/train/0")
    assert code == 1
    assert "No space left on device" in said and "Traceback" not in said
    assert not [path for path in folder.rglob("*") if path.is_file()]
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    assert command("prepare", "gta5/train/0")[0] == 0
    assert len(list(folder.rglob("certificate.json"))) == 1


@pytest.mark.parametrize("place", ["data/prepared", "data/verified", "results"])
def test_a_folder_that_cannot_be_written_is_a_sentence(command, narrow, place):
    prepares = place == "data/prepared"
    if prepares:
        command("verify", "gta5/train")
    narrow(place, "ro")
    words = ("prepare", "gta5/train/0") if prepares else ("verify", "gta5/train")
    code, said = command(*words)
    assert code == (1 if prepares else 2)
    assert "Read-only file system" in said and "Traceback" not in said

"""Figures: small, the same bytes for the same numbers, and they show what they are given."""

import numpy as np
import pytest
from PIL import Image

from madan import labels
from madan.report import plots
from madan.report.plots import Panel


def numbers(*shape):
    return np.random.default_rng(0).uniform(0, 100, shape)


def drawn(kind):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (64, 128, 3), dtype=np.uint8) for _ in range(3)]
    ids = [rng.integers(0, 19, (64, 128), dtype=np.uint8) for _ in range(3)]
    steps = np.arange(10, 200, 10)
    line = steps, np.exp(-steps / 50)
    match kind:
        case "translation":
            blocks = [{"gta5": images, "labels": ids}, {"cityscapes (target)": images}]
            return plots.translation(blocks)
        case "qualitative":
            return plots.qualitative({"image": images, "truth": ids, "madan": ids})
        case "mosaic":
            return plots.mosaic({"a/street": images[:2], "wide": [images[0][:20]] * 2})
        case "classes":
            absent = numbers(2, 19)
            absent[:, 16] = np.nan
            return plots.classes({"source-only": absent, "madan": numbers(2, 19)})
        case "heatmap":
            columns = [*labels.CLASSES, "mIoU 19", "mIoU 16", "mIoU 13"]
            return plots.heatmap({f"row {k}": numbers(22) for k in range(2)}, columns)
        case "confusion":
            return plots.confusion({"madan": numbers(19, 19)})
        case "curves":
            panels = [
                Panel(f"term {k}", {"gta5": [line], "synthia": [line, line]}) for k in range(4)
            ]
            return plots.curves(
                [*panels, Panel("SAD", {"gta5": [line]}, [(60, "gate")], [(0.3, "x")])]
            )
        case "features":
            domains = {"gta5": rng.normal(size=(9, 2)), "cityscapes": rng.normal(2, 1, (9, 2))}
            return plots.features({"before": domains, "after": domains})
        case "shares":
            return plots.shares({name: numbers(19) for name in ("gta5", "synthia", "cityscapes")})


KINDS = "translation qualitative mosaic classes heatmap confusion curves features shares".split()


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_a_small_png_and_pdf(kind, tmp_path):
    plots.save(drawn(kind), tmp_path / "figure.png")
    for name in ("figure.png", "figure.pdf"):
        assert 0 < (tmp_path / name).stat().st_size <= plots.BYTES
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width >= 900 and picture.height >= 250  # A table of two rows is low.


@pytest.mark.parametrize("kind", ["mosaic", "classes"])
def test_the_same_numbers_give_the_same_bytes(kind, tmp_path):
    for folder in ("one", "two"):
        plots.save(drawn(kind), tmp_path / folder / "figure.png")
    for name in ("figure.png", "figure.pdf"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two


def test_large_images_still_make_small_files(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (600, 1080, 3), dtype=np.uint8) for _ in range(5)]
    plots.save(plots.translation([{f"row {k}": images for k in range(8)}]), tmp_path / "f.png")
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= plots.BYTES


def test_images_are_reduced_to_so_many_pixels_and_labels_stay_classes():
    image = np.zeros((1024, 2048, 3), np.uint8)
    assert plots.reduced(image, 5000).shape == (50, 100, 3)
    ids = np.random.default_rng(0).choice(np.array([0, 18, 255], np.uint8), (400, 400))
    assert set(np.unique(plots.reduced(ids, 5000))) == {0, 18, 255}
    assert plots.reduced(ids[:10], 5000) is not None and plots.reduced(ids[:10]).shape == (
        10,
        400,
    )


def test_a_class_that_is_absent_from_every_seed_has_no_mean():
    seeds = np.array([[np.nan, 10.0, np.nan], [np.nan, 30.0, 8.0]])
    np.testing.assert_array_equal(plots.over_seeds(seeds), [np.nan, 20, 8])


@pytest.mark.parametrize("pair", [(a, b) for a in range(8) for b in range(a)])
def test_no_two_colours_of_lines_are_close(pair):
    """Also not in grey, as they come from a printer: where two are, their markers differ."""
    one, two = (tuple(int(plots.COLOURS[k][i : i + 2], 16) for i in (1, 3, 5)) for k in pair)
    assert np.abs(np.subtract(one, two)).sum() > 60
    assert plots.MARKERS[pair[0]] != plots.MARKERS[pair[1]]


def within(figure, text):
    """Whether a text lies on the picture, and where."""
    box = text.get_window_extent(figure.canvas.get_renderer())
    width, height = figure.get_size_inches() * figure.dpi
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, box


LONG = ["cyclegan-combined", "a", "W" * 60, "x y " * 40, "madan-pixel-of-both-sources-longer",
        "$x^{$", "tab\tnew\nline\x1b[31m", "ß" * 300, "写真 😀", ""]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("across", [1, 3, 14])
def test_no_title_of_a_grid_runs_off_the_picture_or_over_another(across):
    image = np.zeros((30, 60, 3), np.uint8)
    ids = np.zeros((30, 60), np.uint8)
    heads = [f"{LONG[k % len(LONG)]} {k}" for k in range(across)]
    for figure in (
        plots.translation([{name or "-": [image] * across for name in LONG}]),
        plots.translation([{f"{name} {k}": [image] for k in range(3) for name in LONG}]),
        plots.qualitative({head: [ids] * 2 for head in heads}),
        plots.mosaic({f"in/{name}": [image] * 3 for name in LONG if name}),
    ):
        boxes = []
        for text in figure.texts:
            inside, box = within(figure, text)
            assert inside, text.get_text()
            boxes.append(box)
        crossing = [(a, b) for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)]
        assert not crossing
        assert all(
            part.isprintable() for text in figure.texts for part in text.get_text().split("\n")
        )
        plots.close(figure)


@pytest.mark.parametrize("count", [1, 5, 20, 40])
def test_a_source_of_a_translation_figure_is_no_higher_than_a_screen(count):
    images = [np.zeros((64, 128, 3), np.uint8)] * 5
    figure = plots.translation([{f"run {k}": images for k in range(count)}, {"target": images}])
    bottoms = [axis.get_position().y0 for axis in figure.axes[: 5 * count]]
    tops = [axis.get_position().y1 for axis in figure.axes[: 5 * count]]
    assert (max(tops) - min(bottoms)) * figure.get_figheight() * plots.DPI <= 900
    plots.close(figure)


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000), (1, 1), (400, 300)])
def test_images_of_any_proportions_give_a_figure_of_some_size(size, tmp_path):
    image = np.zeros((*size, 3), np.uint8)
    plots.save(plots.mosaic({"a": [image] * 3, "b": [image] * 3}), tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as picture:
        assert picture.width >= 900 and picture.height <= 1100


def ticks(figure):
    return [text.get_text() for text in figure.axes[0].get_xticklabels()]


def test_classes_that_no_row_has_are_left_out():
    one, other = numbers(1, 19), numbers(2, 19)
    one[:, [3, 14, 16]] = np.nan
    other[:, [14, 16]] = np.nan
    left = [name for k, name in enumerate(labels.CLASSES) if k not in (14, 16)]
    means = ["mIoU 19", "mIoU 16", "mIoU 13"]
    assert ticks(plots.classes({"a": one, "b": other})) == left
    rows = {"a": np.append(one[0], [1, 2, 3]), "b": np.append(other[0], [1, 2, np.nan])}
    assert ticks(plots.heatmap(rows, [*labels.CLASSES, *means])) == left + means
    assert ticks(plots.shares({"a": np.nan_to_num(one[0]), "b": np.nan_to_num(other[0])})) == left
    confused = numbers(19, 19)
    confused[[3, 14, 16]] = np.nan  # not labelled; wall is predicted all the same
    confused[:, [14, 16]] = np.where(np.isnan(confused[:, [14, 16]]), np.nan, 0)
    assert ticks(plots.confusion({"a": confused})) == left
    everything = numbers(1, 19)
    assert ticks(plots.classes({"a": everything})) == list(labels.CLASSES)
    assert ticks(plots.classes({"a": np.full((1, 19), np.nan)})) == list(labels.CLASSES)


def test_numbers_stay_with_their_class_where_others_are_left_out():
    values = np.arange(22.0)
    values[[3, 14]] = np.nan
    figure = plots.heatmap({"a": values}, [*labels.CLASSES, "m19", "m16", "m13"])
    told = [float(text.get_text()) for text in figure.axes[0].texts]
    assert told == [k for k in range(22) if k not in (3, 14)]

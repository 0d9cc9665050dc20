"""Photos of one's own: any size, upright, in tiles as whole; what is written, what is refused."""

import re

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from madan import cli, config, labels
from madan.config.schema import Export
from madan.engine.progress import Meter
from madan.errors import Refusal
from madan.evaluation import tiling
from madan.evaluation.tiling import strips
from madan.inference import photos, video
from madan.inference import predict as prediction
from madan.inference.predict import Sight
from madan.methods import segmentation
from madan.models import checkpoints

TILES = Export(tile=(64, 128), overlap=32)
OWN = Sight(0, TILES, "fp32", 1)


@pytest.fixture
def net(raw):
    torch.manual_seed(0)
    return segmentation.build(config.resolve(raw).networks.segmenter).eval()


@pytest.fixture
def undrawn(monkeypatch):
    """Mosaics are empty files: drawing one takes most of a test's time."""
    monkeypatch.setattr(prediction.plots, "mosaic", lambda shown: None)
    monkeypatch.setattr(prediction.plots, "write", lambda figure, path: path.touch())
    monkeypatch.setattr(prediction.plots, "close", lambda figure: None)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(*paths, size=(40, 70)):
    for k, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(*size, seed=k)).save(path)


def film(path, count=5, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (np.full((*size, 3), 20 * k % 256, np.uint8) for k in range(count))
    assert video.write(path, frames, 10) == count


class Scores(torch.nn.Module):
    """The class of a pixel is its red level, whatever lies around it."""

    def forward(self, x):
        red = (x[:, :1] * 0.229 + 0.485) * 255
        return -(red - torch.arange(19.0)[None, :, None, None]).abs()


def predict(net, out, *paths, sight=OWN):
    photos._listed.cache_clear()
    return prediction.predict(net, photos.find(paths, "predict"), out, sight)


def stylise(out, *paths, net=None, tiles=TILES, height=0):
    photos._listed.cache_clear()
    found = photos.find(paths, "stylise")
    return prediction.stylise(net or torch.nn.Identity(), found, out, tiles, "fp32", height)


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("size", [(64, 128), (61, 300), (200, 90), (131, 257)])
def test_predictions_have_the_size_of_the_photo_and_tiles_change_nothing(size):
    image = picture(*size)
    image[..., 0] %= 19
    seen = prediction.train_ids(Scores(), image, OWN)
    np.testing.assert_array_equal(seen, image[..., 0])


def test_tiles_that_leave_f_no_room_are_made_larger():
    image = picture(100, 90)
    image[..., 0] %= 19
    sight = OWN._replace(tiles=Export(tile=(40, 48), overlap=24))
    np.testing.assert_array_equal(prediction.train_ids(Scores(), image, sight), image[..., 0])


def test_a_photo_is_seen_at_the_height_of_training_and_its_scores_enlarged(net):
    image = picture(240, 400)
    sizes = []
    net.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[2:])))
    seen = prediction.train_ids(net, image, OWN._replace(height=60))
    assert sizes == [(60, 100)] and seen.shape == (240, 400) and seen.max() < 19


def test_enlarging_class_by_class_is_enlarging_all_at_once():
    scores = torch.randn(19, 9, 13)
    whole = torch.nn.functional.interpolate(scores[None], size=(31, 50), mode="bilinear")[0]
    np.testing.assert_array_equal(
        prediction._enlarged(scores, (31, 50)), whole.max(0).indices.numpy()
    )


def test_strips_of_scores_have_as_many_rows_as_the_photo(net):
    with torch.no_grad():
        made = list(strips(net, torch.randn(1, 3, 150, 140), TILES.tile, TILES.overlap, 32))
    assert len(made) > 1 and torch.cat(made, 2).shape == (1, 19, 150, 140)


def test_a_folder_becomes_label_ids_overlays_and_a_mosaic(net, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    upright = Image.fromarray(picture(40, 70))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    upright.save(folder / "a.JPG", exif=turned)
    upright.convert("L").save(folder / "more/b.png")
    (folder / "notes.txt").write_text("not a photo")
    assert predict(net, tmp_path / "out", folder) == {}
    for name, size in (("a", (40, 70)), ("more/b", (70, 40))):
        with Image.open(tmp_path / f"out/labelIds/{name}.png") as ids:
            assert ids.size == size and set(np.unique(ids)) <= set(
                labels.to_label_ids(np.arange(19, dtype=np.uint8)).tolist()
            )
        with Image.open(tmp_path / f"out/colour/{name}.png") as colours:
            assert colours.size == size
            known = {tuple(colour) for colour in labels.PALETTE.tolist()}
            assert {tuple(pixel) for pixel in np.asarray(colours).reshape(-1, 3)} <= known
        with Image.open(tmp_path / f"out/overlay/{name}.jpg") as shown:
            assert shown.size == size and shown.mode == "RGB"
    assert (tmp_path / "out/mosaic.png").exists()


@pytest.mark.usefixtures("undrawn")
def test_an_upright_photo_is_seen_as_the_same_photo_that_was_turned(net, tmp_path):
    image = picture(40, 70)
    for orientation, turns in ((1, 0), (6, 1), (3, 2), (8, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.rot90(image, turns)).save(tmp_path / f"{turns}.png", exif=exif)
    predict(net, tmp_path / "out", *sorted(tmp_path.glob("*.png")))
    assert len({(tmp_path / f"out/labelIds/{k}.png").read_bytes() for k in range(4)}) == 1


@pytest.mark.parametrize("out", ["holiday/out", "holiday", "out"])
@pytest.mark.parametrize("act", [predict, stylise])
@pytest.mark.usefixtures("undrawn")
def test_the_same_call_twice_writes_the_same_files(net, tmp_path, out, act, monkeypatch):
    save(tmp_path / "holiday/a.jpg", tmp_path / "holiday/deep/b.jpg")
    first = (net,) if act is predict else ()
    before = content(tmp_path)
    act(*first, tmp_path / out, tmp_path / "holiday")
    once = content(tmp_path)
    act(*first, tmp_path / out, tmp_path / "holiday")
    assert content(tmp_path) == once and before.items() <= once.items()
    assert any(path.name == ("a.png") for path in once)


@pytest.mark.parametrize("act", [predict, stylise])
@pytest.mark.usefixtures("undrawn")
def test_a_photo_is_never_replaced(net, tmp_path, act):
    save(tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "labelIds/c.png")
    before = content(tmp_path)
    first = (net,) if act is predict else ()
    if act is predict:
        save(tmp_path / "in/c.png")
        before = content(tmp_path)
        with pytest.raises(Refusal, match=r"labelIds/c.png was not written by madan"):
            act(*first, tmp_path, tmp_path / "in/c.png")
    else:
        with pytest.raises(Refusal, match=r"a.png was not written by madan"):
            act(*first, tmp_path, tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("act", [predict, stylise])
@pytest.mark.usefixtures("undrawn")
def test_a_damaged_photo_is_reported_and_the_others_have_their_turn(net, tmp_path, act, capsys):
    save(tmp_path / "in/a.png", tmp_path / "in/z.png")
    whole = (tmp_path / "in/a.png").read_bytes()
    bad = {"cut.png": whole[:300], "empty.jpg": b"", "text.jpg": b"hello", "b\x1b[31m\n.jpg": b"x",
           "film.mp4": b"no film"}  # fmt: skip
    for name, damaged in bad.items():
        (tmp_path / "in" / name).write_bytes(damaged)
    first = (net,) if act is predict else ()
    unread = act(*first, tmp_path / "out", tmp_path / "in")
    assert set(unread) == {str(tmp_path / "in" / name) for name in bad}
    assert all(reason.isprintable() and "cannot be read" in reason for reason in unread.values())
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} >= {"a", "z"}
    assert "\x1b" not in capsys.readouterr().out


def test_photos_that_are_all_damaged_are_reported(net, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert len(predict(net, tmp_path / "out", tmp_path / "a.jpg")) == 1
    assert not (tmp_path / "out/mosaic.png").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (60, 4)])
@pytest.mark.usefixtures("undrawn")
def test_photos_of_few_pixels_are_predicted_or_reported(net, tmp_path, size):
    save(tmp_path / "a.png", size=size)
    save(tmp_path / "b.png")
    for height in (0, 32):
        unread = predict(net, tmp_path / "out", tmp_path, sight=OWN._replace(height=height))
        assert set(unread) <= {str(tmp_path / "a.png")}
        assert (tmp_path / "out/labelIds/b.png").exists()
    generator = tiling.Generator(
        ngf=4, blocks=1, end_kernel=3, upsample="nearest", dropout=False, colour=True
    )
    unread = stylise(tmp_path / "styled", tmp_path / "a.png", tmp_path / "b.png", net=generator)
    assert set(unread) == {str(tmp_path / "a.png")} and "too small" in unread.popitem()[1]


@pytest.mark.usefixtures("undrawn")
def test_names_of_250_bytes_and_many_photos_are_written(tmp_path):
    long = "ä" * 123
    save(tmp_path / f"in/{long}.png", tmp_path / f"in/{long}.bmp", size=(8, 8))
    for k in range(200):
        save(tmp_path / f"in/{k // 50}/{k % 50}.png", size=(8, 8))
    assert predict(Scores(), tmp_path / "out", tmp_path / "in") == {}
    assert len(list((tmp_path / "out/labelIds").rglob("*.png"))) == 202


def test_photos_are_not_held_in_memory(net, tmp_path, monkeypatch):
    save(*(tmp_path / f"in/{k}.png" for k in range(12)))
    held = []
    monkeypatch.setattr(prediction.plots, "mosaic", lambda shown: held.append(shown))
    monkeypatch.setattr(prediction.plots, "write", lambda figure, path: path.touch())
    predict(net, tmp_path / "out", tmp_path / "in")
    assert len(held[0]) == prediction.IN_MOSAIC


def test_stylised_photos_keep_their_size(tmp_path):
    save(tmp_path / "a.png", size=(90, 170))
    stylise(tmp_path / "out", tmp_path / "a.png", tiles=Export(tile=(32, 64), overlap=8))
    with Image.open(tmp_path / "out/a.png") as made, Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(made), np.asarray(image))


def test_the_generator_sees_a_photo_at_the_height_that_is_asked_for(tmp_path):
    save(tmp_path / "a.png", size=(90, 171))
    sizes = []
    net = torch.nn.Identity()
    net.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[2:])))
    stylise(tmp_path / "out", tmp_path / "a.png", net=net, height=30)
    assert sizes == [(30, 57)]
    with Image.open(tmp_path / "out/a.png") as made:
        assert made.size == (171, 90)


@pytest.mark.usefixtures("undrawn")
def test_tiles_are_announced_once_for_a_size(net, tmp_path, capsys):
    save(tmp_path / "in/a.png", tmp_path / "in/b.png", size=(90, 171))
    save(tmp_path / "in/small.png")
    predict(Scores(), tmp_path / "out", tmp_path / "in")
    said = capsys.readouterr().out
    assert said.count("images of 90x171 pixels have more than a tile of 64x128") == 1
    assert said.count("may differ") == 1
    stylise(tmp_path / "styled", tmp_path / "in")
    assert capsys.readouterr().out.count("statistics of the whole image") == 1


def test_a_segmenter_with_group_norm_sees_a_photo_whole_as_long_as_memory_allows(
    net, tmp_path, monkeypatch, capsys
):
    save(tmp_path / "a.png", size=(90, 171))
    sizes = []
    net.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[2:])))
    predict(net, tmp_path / "out", tmp_path / "a.png")
    assert sizes == [(90, 171)] and "tile" not in capsys.readouterr().out
    sizes.clear()
    monkeypatch.setattr(tiling, "free_memory", lambda device: 10_000)
    predict(net, tmp_path / "out", tmp_path / "a.png")
    assert len(sizes) > 1 and max(h * w for h, w in sizes) <= 64 * 128
    said = " ".join(capsys.readouterr().out.split())
    assert "labels differ from those of the whole photo" in said and "--height" in said


@pytest.mark.usefixtures("undrawn")
def test_a_video_becomes_a_video(tmp_path):
    film(tmp_path / "in/film.mp4", count=7, size=(48, 65))
    save(tmp_path / "in/a.png")
    assert predict(Scores(), tmp_path / "out", tmp_path / "in") == {}
    assert stylise(tmp_path / "styled", tmp_path / "in") == {}
    for path in (tmp_path / "out/overlay/film.mp4", tmp_path / "styled/film.mp4"):
        frames = list(video.frames(path))
        assert len(frames) == 7 and video.kind(path).rate == pytest.approx(10)
        assert frames[0].shape[:2] == video.kind(tmp_path / "in/film.mp4").size
    means = [frame.mean() for frame in video.frames(tmp_path / "styled/film.mp4")]
    assert np.abs(np.array(means) - 20 * np.arange(7)).max() < 8


def test_a_video_that_was_cut_short_is_reported(tmp_path):
    film(tmp_path / "film.avi", count=60)
    whole = (tmp_path / "film.avi").read_bytes()
    (tmp_path / "film.avi").write_bytes(whole[: len(whole) // 2])
    unread = stylise(tmp_path / "out", tmp_path / "film.avi")
    assert list(unread) == [str(tmp_path / "film.avi")]
    assert re.search(r"cut short|cannot be read|holds no frame", unread.popitem()[1])


def test_a_video_is_never_an_address_or_a_list_of_other_files(tmp_path):
    save(tmp_path / "img_00.png", tmp_path / "img_01.png")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/img_00.png'\n")
    (tmp_path / "beside.mp4").write_text("ffconcat version 1.0\nfile img_00.png\n")
    for name in ("list.mp4", "beside.mp4", "img_%02d.png", "http:"):
        with pytest.raises(Refusal, match="cannot be read as a video"):
            video.kind(tmp_path / name)


def test_frames_count_in_the_bar(tmp_path, monkeypatch):
    film(tmp_path / "film.mp4", count=5)
    save(tmp_path / "a.png")
    shown = []
    monkeypatch.setattr(Meter, "show", lambda self, done, figures: shown.append((done, self.total)))
    stylise(tmp_path / "out", tmp_path)
    assert shown[0] == (1, 6) and shown[-1] == (6, 6)


def story(raw, **more):
    network = config.resolve(raw).networks.segmenter.model_dump()
    return {"settings": {"networks": {"segmenter": network}, **more}}


def test_a_weights_file_says_what_its_segmenter_is_like(net, raw, tmp_path):
    for name in ("F", "FA"):
        checkpoints.save(tmp_path / f"{name}.safetensors", {name: net}, story(raw))
        again = prediction.segmenter(tmp_path / f"{name}.safetensors")
        assert all(map(torch.equal, again.parameters(), net.parameters()))


@pytest.mark.parametrize(
    "settings",
    [None, 3, [], {}, {"networks": None}, {"networks": {"segmenter": None}},
     {"networks": {"segmenter": {"widths": "x"}}}, {"networks": {"drn26": {}}}],
)  # fmt: skip
def test_a_weights_file_that_describes_no_segmenter_is_refused(net, tmp_path, settings):
    path = tmp_path / "other.safetensors"
    checkpoints.save(path, {"F": net}, {"settings": settings})
    with pytest.raises(Refusal, match="does not (say|describe)"):
        prediction.segmenter(path)


def test_weights_of_another_network_are_refused(net, raw, tmp_path):
    checkpoints.save(tmp_path / "G.safetensors", {"G": net}, story(raw))
    with pytest.raises(Refusal, match="does not say what its segmenter is like, or holds none"):
        prediction.segmenter(tmp_path / "G.safetensors")


def test_a_weights_file_says_how_it_saw_images(net, raw, tmp_path):
    path = tmp_path / "F.safetensors"
    told = {"training": {"segmenter": {"crop": [48, 96]}, "threads": 2}}
    checkpoints.save(path, {"F": net}, story(raw, **told) | {"precision": "bf16"})
    assert prediction.as_trained(path)[:1] + prediction.as_trained(path)[2:] == (48, "bf16", 2)
    for wrong in ({}, {"training": 3}, {"training": {"segmenter": {"crop": "x"}, "threads": -1}}):
        checkpoints.save(path, {"F": net}, story(raw, **wrong))
        assert prediction.as_trained(path).height == 600


def test_predict_needs_no_settings_beside_a_weights_file(net, raw, tmp_path, monkeypatch, capsys):
    told = {"training": {"segmenter": {"crop": [64, 128]}, "threads": 1}}
    checkpoints.save(tmp_path / "F.safetensors", {"F": net}, story(raw, **told))
    save(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as ended:
        cli.training.predict([tmp_path], "F.safetensors", tmp_path / "out", None)
    said = capsys.readouterr()
    assert ended.value.exit_code == 1 and str(tmp_path / "b.png") in said.err
    assert "written for 1 files" in said.out
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"F.safetensors", "a.png", "b.png", "out"}
    with pytest.raises(Refusal, match="params.yaml not found"):
        cli.training.predict([tmp_path / "a.png"], "madan", tmp_path / "out", None)


def test_dark_and_bright_photos_show_where_classes_begin():
    from madan.evaluation import export

    ids = np.zeros((60, 80), np.uint8)
    ids[:, 40:], ids[50:, :20] = 13, 255
    for level in (0, 255):
        image = np.full((60, 80, 3), level, np.uint8)
        shown = export.overlay(image, ids).astype(int)
        line, beside = shown[10, 40], shown[10, [30, 50]]
        assert np.abs(line - beside).max(1).min() > 100, level
        assert (shown[55, 5] == level).all()


def test_a_mosaic_shows_names_as_they_are_written(tmp_path):
    from madan.report import plots

    image = picture(20, 30)
    name = "in/a$x^{$b\x1b[31m\n" + "long" * 60
    plots.save(plots.mosaic({name: [image, image, image]}), tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as made:
        assert made.width > 900

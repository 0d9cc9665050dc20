"""Photos of one's own: any size, upright, in tiles as whole; names and refusals."""

import numpy as np
import pytest
import torch
from PIL import Image

from madan import checkpoints, config, labels, prediction, segmentation
from madan.schema import Export, Refusal
from madan.stylisation import strips

TILES = Export(tile=(64, 128), overlap=32)


@pytest.fixture
def net(raw):
    torch.manual_seed(0)
    return segmentation.build(config.resolve(raw).networks.segmenter).eval()


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Scores(torch.nn.Module):
    """The class of a pixel is its red level, whatever lies around it."""

    def forward(self, x):
        red = (x[:, :1] * 0.229 + 0.485) * 255
        return -(red - torch.arange(19.0)[None, :, None, None]).abs()


@pytest.mark.parametrize("size", [(64, 128), (61, 300), (200, 90), (131, 257)])
def test_predictions_have_the_size_of_the_photo_and_tiles_change_nothing(size):
    image = picture(*size)
    image[..., 0] %= 19
    seen = prediction.train_ids(Scores(), image, 0, TILES, "fp32")
    np.testing.assert_array_equal(seen, image[..., 0])


def test_tiles_that_leave_f_no_room_are_made_larger():
    image = picture(100, 90)
    image[..., 0] %= 19
    seen = prediction.train_ids(Scores(), image, 0, Export(tile=(40, 48), overlap=24), "fp32")
    np.testing.assert_array_equal(seen, image[..., 0])


def test_a_photo_is_seen_at_the_height_of_training_and_its_scores_enlarged(net):
    image = picture(240, 400)
    sizes = []
    net.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[2:])))
    seen = prediction.train_ids(net, image, 60, TILES, "fp32")
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
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    upright = Image.fromarray(picture(40, 70))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    upright.save(photos / "a.JPG", exif=turned)
    upright.convert("L").save(photos / "more/b.png")
    (photos / "notes.txt").write_text("not a photo")
    found = prediction.photos([photos])
    assert list(found) == ["a", "more/b"]
    prediction.predict(net, found, tmp_path / "out", 0, TILES, "fp32")
    for name, size in (("a", (40, 70)), ("more/b", (70, 40))):
        with Image.open(tmp_path / f"out/labelIds/{name}.png") as ids:
            assert ids.size == size and set(np.unique(ids)) <= set(
                labels.to_label_ids(np.arange(19, dtype=np.uint8)).tolist()
            )
        with Image.open(tmp_path / f"out/overlay/{name}.jpg") as shown:
            assert shown.size == size and shown.mode == "RGB"
    assert (tmp_path / "out/mosaic.png").exists()


def test_stylised_photos_keep_their_size(tmp_path):
    Image.fromarray(picture(90, 170)).save(tmp_path / "a.png")
    generator = torch.nn.Identity()
    prediction.stylise(
        generator,
        {"a": tmp_path / "a.png"},
        tmp_path / "out",
        Export(tile=(32, 64), overlap=8),
        "fp32",
    )
    with Image.open(tmp_path / "out/a.png") as made:
        np.testing.assert_array_equal(np.asarray(made), picture(90, 170))


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in (("gone.jpg", "not found"), ("empty", "holds no images")):
        with pytest.raises(Refusal, match=words):
            prediction.photos([tmp_path / path])
    for name in ("a.jpg", "a.png"):
        Image.fromarray(picture(8, 8)).save(tmp_path / name)
    with pytest.raises(Refusal, match="rename one"):
        prediction.photos([tmp_path / "a.jpg", tmp_path / "a.png"])


def test_a_weights_file_says_what_its_segmenter_is_like(net, raw, tmp_path):
    network = config.resolve(raw).networks.segmenter.model_dump()
    story = {"settings": {"networks": {"segmenter": network}}}
    for name in ("F", "FA"):
        checkpoints.save(tmp_path / f"{name}.safetensors", {name: net}, story)
        again = prediction.segmenter(tmp_path / f"{name}.safetensors")
        assert all(map(torch.equal, again.parameters(), net.parameters()))
    checkpoints.save(tmp_path / "other.safetensors", {"G": net}, {})
    with pytest.raises(Refusal, match="does not say what its segmenter"):
        prediction.segmenter(tmp_path / "other.safetensors")

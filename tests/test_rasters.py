"""Photos: every bit depth and colour type has the values it shows, or is refused by name."""

import os
import socket
import stat

import encoders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from madan.data import rasters
from madan.data.rasters import Unfit
from madan.folders import NotNow

RGB = np.array([[(255, 0, 0), (0, 128, 255)], [(7, 90, 200), (255, 255, 255)]], np.uint8)
GREY = np.array([[0, 255], [85, 170]], np.uint8)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("rasters")


def shown(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, 2)


def alpha(pixels: np.ndarray, most: int) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], most)])


WRITTEN = {
    "RGB 8": lambda p: (encoders.png(p, RGB, 8, encoders.RGB), RGB),
    "RGB 16": lambda p: (encoders.png(p, RGB.astype(int) * 257, 16, encoders.RGB), RGB),
    "RGBA 8": lambda p: (encoders.png(p, alpha(RGB, 255), 8, encoders.RGBA), RGB),
    "RGBA 16": lambda p: (
        encoders.png(p, alpha(RGB.astype(int) * 257, 65535), 16, encoders.RGBA), RGB
    ),
    "grey 8": lambda p: (encoders.png(p, GREY, 8, encoders.GREY), shown(GREY)),
    "grey 16": lambda p: (
        encoders.png(p, GREY.astype(int) * 257, 16, encoders.GREY), shown(GREY)
    ),
    "grey 4": lambda p: (encoders.png(p, GREY // 17, 4, encoders.GREY), shown(GREY)),
    "grey 2": lambda p: (encoders.png(p, GREY // 85, 2, encoders.GREY), shown(GREY)),
    "grey 1": lambda p: (
        encoders.png(p, GREY // 128, 1, encoders.GREY), shown(GREY // 128 * 255)
    ),
    "grey and alpha 8": lambda p: (
        encoders.png(p, alpha(GREY, 255), 8, encoders.GREY_ALPHA), shown(GREY)
    ),
    "grey and alpha 16": lambda p: (
        encoders.png(p, alpha(GREY.astype(int) * 257, 65535), 16, encoders.GREY_ALPHA), shown(GREY)
    ),
    **{
        f"palette {depth}": lambda p, depth=depth: (
            encoders.png(p, np.arange(4).reshape(2, 2) % 2**depth, depth, encoders.PALETTE,
                         RGB.reshape(-1, 3)[: 2**depth]),
            RGB.reshape(-1, 3)[np.arange(4).reshape(2, 2) % 2**depth],
        )
        for depth in (1, 2, 4, 8)
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_depth_and_colour_type_of_png_has_the_values_it_shows(tmp_path, kind):
    path = tmp_path / "1.png"
    _, expected = WRITTEN[kind](path)
    photo = rasters.photo(path)
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.tolist() == expected.tolist()
    header = rasters.header(path)
    assert header.size == (2, 2)
    assert header.bits == int(kind.split()[-1])


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 65535), min_size=6, max_size=6), grey=st.booleans())
def test_sixteen_bits_are_scaled_to_the_nearest_of_eight(scratch, values, grey):
    values[0] = 65535
    deep = np.array(values).reshape((2, 3) if grey else (1, 2, 3))
    path = scratch / "1.png"
    encoders.png(path, deep, 16, encoders.GREY if grey else encoders.RGB)
    expected = np.floor(deep / 257 + 0.5).astype(int)
    pixels = rasters.photo(path).pixels
    assert pixels.tolist() == (shown(expected) if grey else expected).tolist()


def test_twelve_bits_in_sixteen_are_refused_with_the_highest_value(tmp_path):
    encoders.png(tmp_path / "1.png", np.array([[0, 4000]]), 16, encoders.GREY)
    with pytest.raises(
        Unfit, match=r"1\.png has 16 bits, but no value above 4000 of 65535"
    ) as caught:
        rasters.photo(tmp_path / "1.png")
    assert caught.value.kind == "bit depth"


def test_sixteen_bits_of_a_tiff_are_scaled_and_floats_refused(tmp_path):
    deep = np.array([[0, 65535], [257 * 7, 257 * 200]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "1.tif")
    assert rasters.photo(tmp_path / "1.tif").pixels[:, :, 0].tolist() == [[0, 255], [7, 200]]
    Image.fromarray(np.array([[0.0, 0.5], [1.0, 3.0]], np.float32)).save(tmp_path / "2.tif")
    with pytest.raises(Unfit, match=r"2\.tif has float32 values .*whose range is not known"):
        rasters.photo(tmp_path / "2.tif")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, turn, deep, late):
    pixels = np.arange(18, dtype=int).reshape(2, 3, 3) * 13
    path = tmp_path / "1.png"
    samples = pixels * 257 if deep else pixels
    encoders.png(path, samples, 16 if deep else 8, encoders.RGB, turn=turn, late=late)
    with Image.open(path) as opened:
        opened.load()
        expected = np.asarray(ImageOps.exif_transpose(opened))
    photo = rasters.photo(path)
    assert photo.pixels.tolist() == expected.tolist()
    assert photo.turn == turn
    if not late:
        assert rasters.header(path).size == expected.shape[:2]


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
@pytest.mark.parametrize("kind", ["EPS", "GIF", "PDF", "TIFF", "BMP", "PPM"])
def test_only_formats_of_the_list_are_opened_under_a_pngs_or_jpegs_name(tmp_path, kind, name):
    """A PostScript file would start Ghostscript through Pillow."""
    Image.new("RGB", (4, 4), "red").save(tmp_path / name, format=kind)
    with pytest.raises(Unfit, match="of no known kind"):
        rasters.photo(tmp_path / name)


@pytest.mark.parametrize(("name", "kind"), [("1.jpg", "PNG"), ("1.png", "JPEG"), ("1.bmp", "BMP")])
def test_png_and_jpeg_are_read_under_any_name_and_others_under_their_own(tmp_path, name, kind):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / name, format=kind)
    assert (rasters.photo(tmp_path / name).pixels == 255).all()


@pytest.mark.parametrize("side", [9500, 40_000])
def test_pixels_are_counted_before_anything_is_decoded(tmp_path, side, monkeypatch):
    header = encoders.struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = (
        encoders.chunk(b"IHDR", header)
        + encoders.chunk(b"IDAT", b"x")
        + encoders.chunk(b"IEND", b"")
    )
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    for look in (rasters.photo, rasters.header):
        with pytest.warns(Image.DecompressionBombWarning) if side < 10_000 else _nothing():
            with pytest.raises(Unfit, match="exceeds limit"):
                look(tmp_path / "1.png")


class _nothing:
    def __enter__(self):
        return None

    def __exit__(self, *words):
        return None


def test_bytes_are_counted_before_a_file_is_read(tmp_path):
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(rasters.BYTES + 1)
    with pytest.raises(Unfit, match=f"has {rasters.BYTES + 1} bytes, of at most {rasters.BYTES}"):
        rasters.photo(tmp_path / "1.png")


def pipe(path):
    os.mkfifo(path)


def plug(path):
    path.symlink_to("/dev/zero")


def outlet(path):
    here = os.getcwd()
    os.chdir(path.parent)  # The address of a socket has few letters.
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "word"),
    [(pipe, "a pipe"), (plug, "a device"), (outlet, "a socket"), (os.mkdir, "a folder")],
)
@pytest.mark.parametrize("look", [rasters.photo, rasters.header])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, make, word, look):
    make(tmp_path / "1.png")
    with pytest.raises(Unfit, match=f"1.png is {word}, expected an image") as caught:
        look(tmp_path / "1.png")
    assert caught.value.kind == "not a file"


@pytest.mark.parametrize(
    "name", ["EACCES", "EPERM", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ETIMEDOUT"]
)
@pytest.mark.parametrize("step", ["open", "read"])
def test_a_file_system_that_fails_is_no_fault_of_the_file(tmp_path, monkeypatch, name, step):
    import errno
    from pathlib import Path

    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    opened = Path.open

    def fail(*words):
        raise error

    class Failing:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *words):
            self.file.close()

        read = fail

    monkeypatch.setattr(
        Path, "open", fail if step == "open" else lambda path, mode: Failing(opened(path, mode))
    )
    with pytest.raises(NotNow, match=r"1\.png cannot be read for the moment \(.*try again"):
        rasters.photo(tmp_path / "1.png")


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(Unfit, match=r"1\.png cannot be read as an image .*it is gone"):
        rasters.photo(tmp_path / "1.png")
    (tmp_path / "1.png").symlink_to("1.png")
    with pytest.raises(Unfit, match=r"1\.png cannot be read as an image .*it is gone"):
        rasters.photo(tmp_path / "1.png")


def test_the_digest_is_that_of_the_files_bytes(tmp_path):
    import hashlib

    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    assert rasters.photo(tmp_path / "1.png").digest == hashlib.sha256(content).hexdigest()[:16]
    assert stat.S_ISREG((tmp_path / "1.png").stat().st_mode)

"""Rasters: image files to arrays, without trust in what a file says that it is.

A file is read once, as bytes. Only the formats of an allow-list are decoded, and only after its
kind, its length and its number of pixels are checked.
"""

import contextlib
import errno
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from madan import folders
from madan.errors import Refusal
from madan.folders import NotNow
from madan.shortages import lacks_memory

Array = np.ndarray
ORIENTATION = 0x0112  # the EXIF entry that says which way is up
ON_ITS_SIDE = 5  # from this orientation on, width and height change places
PIXELS = 89_478_485  # Pillow warns of more: a quarter of a gigabyte of RGB
BYTES = 1 << 30
DIM = 4096  # 12 of 16 bits; a photo whose values stay below would come out black

# Whatever a file is called, it may be a PNG or a JPEG; other formats need their own suffix.
ALWAYS = ("PNG", "JPEG")
FORMATS = {
    ".bmp": ("BMP",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".webp": ("WEBP",),
    ".ppm": ("PPM",),
    ".pgm": ("PPM",),
}
# Errors of a file system that say nothing of the file's content.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Unfit(Refusal):
    """A file that is not what its layout says; `kind` is what verify calls it."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class Photo(NamedTuple):
    """An image turned upright, uint8 [H, W, 3], its file's SHA-256 (16 digits) and EXIF turn."""

    pixels: Array
    digest: str
    turn: int


def photo(path: Path) -> Photo:
    """Read an image as RGB, 8 bits, turned upright as its EXIF entry says.

    16 bits are scaled to 8. Raises Unfit for a file that cannot be read as an image or whose values
    have no known range, NotNow where the file system fails.
    """
    content = read_bytes(path)
    with decoding(path):
        opened = opened_image(path, content)
        if depth(opened, content) > 8:
            pixels = _eight_bits(path, content, opened)
        else:
            pixels = np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))
        turn = orientation(opened)
    return Photo(upright(pixels, turn), sha(content), turn)


class Header(NamedTuple):
    """What the first bytes of an image say: size [h, w] upright, mode, bits, EXIF orientation."""

    size: tuple[int, int]
    mode: str
    bits: int
    turn: int


def header(path: Path) -> Header:
    """Read what the first bytes of an image say; raises as `photo` does."""
    with _file(path) as file, decoding(path):
        first = file.read(26)
        file.seek(0)
        opened = opened_image(path, file)
        turn = orientation(opened)
        width, height = opened.size[::-1] if turn >= ON_ITS_SIDE else opened.size
        return Header((height, width), opened.mode, depth(opened, first), turn)


def read_bytes(path: Path) -> bytes:
    """The content of a file; Unfit for what is no ordinary file, NotNow where it cannot be read."""
    with _file(path) as file:
        return file.read()


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    """An ordinary file, open to be read; opening a pipe or a device could wait for ever."""
    try:
        about = path.stat()
        if odd := folders.kind(about.st_mode):
            raise Unfit("not a file", f"{path} is {odd}, expected an image; move it away.")
        if about.st_size > BYTES:
            raise Unfit(
                "too large", f"{path} has {about.st_size} bytes, of at most {BYTES}; replace it."
            )
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if error.errno in GONE:
            raise Unfit(
                "unreadable", f"{path} cannot be read as an image ({error.strerror}): it is gone."
            ) from None
        raise NotNow(
            f"{path} cannot be read for the moment ({error.strerror}): mend its permissions or its "
            "disk and try again."
        ) from None


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn a decoder's error into a sentence that names the file."""
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError(str(error)) from None
        if isinstance(error, OSError) and error.errno:  # of the machine, not of the file's bytes
            raise NotNow(f"{path} cannot be read for the moment ({error.strerror}).") from None
        # Of a damaged file decoders raise whatever the bytes lead to.
        # Pillow's own words for this name a place in memory, so no two runs agree.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"of no known kind: {', '.join(_formats(path))}" if unknown else error
        raise Unfit(
            "unreadable",
            f"{path} cannot be read as an image ({reason}): it is damaged or cut short; "
            "download or extract it again.",
        ) from None


def opened_image(path: Path, file: bytes | BinaryIO) -> Image.Image:
    """Open an image of an allowed format and size; of bytes, after its checksums are right.

    Pillow leaves the checksums out when it reads pixels. Raises what Pillow raises, and Unfit.
    """
    allowed = _formats(path)
    opened = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=allowed)
    width, height = opened.size
    if width * height > PIXELS:
        raise Unfit(
            "unreadable",
            f"{path} cannot be read as an image: {width}x{height} exceeds limit of {PIXELS} "
            "pixels; replace it by a smaller one.",
        )
    if isinstance(file, bytes):
        opened.verify()
        opened = Image.open(io.BytesIO(file), formats=allowed)
    return opened


def _formats(path: Path) -> tuple[str, ...]:
    """The formats that a file of this name may have."""
    return (*ALWAYS, *FORMATS.get(path.suffix.lower(), ()))


def depth(opened: Image.Image, content: bytes) -> int:
    """Bits of each channel of an image that begins with these bytes; 8 where nothing says so."""
    if opened.format == "PNG" and len(content) > 24:
        return content[24]  # of the header, which comes first
    if opened.format == "TIFF":
        return int(max(opened.tag_v2.get(258, (8,))))  # type: ignore[attr-defined]
    return 16 if opened.mode.startswith("I") else 32 if opened.mode == "F" else 8


def unchanged(path: Path, content: bytes) -> Array:
    """Decode with all bits of every channel, [H, W] or [H, W, C] with red last but for alpha.

    Pillow keeps the high byte of 16-bit colours alone.
    """
    import cv2

    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"{path} cannot be decoded")
    return np.asarray(image)


def _eight_bits(path: Path, content: bytes, opened: Image.Image) -> Array:
    """RGB of 8 bits from an image of 16; Unfit where the range of the values is not known."""
    opened.load()  # What follows the pixels, such as the EXIF entry, is known from here on.
    deep = unchanged(path, content)
    if deep.dtype != np.uint16:
        raise Unfit(
            "bit depth",
            f"{path} has {deep.dtype} values ({opened.mode}), whose range is not known; save it "
            "with 8 bits.",
        )
    if deep.max() < DIM:
        raise Unfit(
            "bit depth",
            f"{path} has 16 bits, but no value above {deep.max()} of 65535, so it would be "
            "almost black; scale it and save it with 8 bits.",
        )
    eight = ((deep.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if eight.ndim == 2:
        return np.repeat(eight[:, :, None], 3, 2)
    if eight.shape[2] == 2:
        return np.repeat(eight[:, :, :1], 3, 2)
    return np.ascontiguousarray(eight[:, :, 2::-1])


def orientation(image: Image.Image) -> int:
    """Which way is up, 1 to 8, as EXIF says: 1 upright, from ON_ITS_SIDE on lying on its side."""
    # Asked for more than that, Pillow would decode a whole PNG.
    turn = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    return turn if turn in range(1, 9) else 1


def upright(pixels: Array, turn: int) -> Array:
    """Turn pixels [H, W, ...] upright as an EXIF orientation, 1 to 8, says."""
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    return np.ascontiguousarray(turned[turn](pixels)) if turn in turned else pixels


def sha(content: bytes) -> str:
    """The first 16 digits of the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()[:16]

"""Videos, frame by frame: read and written by OpenCV's FFmpeg, without sound."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from madan.data.datasets import Array
from madan.errors import Refusal
from madan.inert import inert

SUFFIX = ".mp4"
CODEC = "mp4v"  # MPEG-4 part 2, which OpenCV's wheels can write
# What FFmpeg reads: files alone, as containers alone. Lists of other files and addresses, which it
# also takes for videos whatever their name, are none of these.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo"
_OPTIONS = {
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"protocol_whitelist;file|format_whitelist;{_FORMATS}",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # its messages quote the file, escapes included
}


class Kind(NamedTuple):
    """Frames a second, the number of frames as the file states it, and their size (h, w)."""

    rate: float
    length: int
    size: tuple[int, int]


def kind(path: Path) -> Kind:
    """Read what a video's header says; Refusal where it cannot be read as a video."""
    opened = _opened(path)
    try:
        rate = opened.get(cv2.CAP_PROP_FPS)
        length = int(opened.get(cv2.CAP_PROP_FRAME_COUNT))
        read, frame = opened.read()
    finally:
        opened.release()
    if not read:
        raise Refusal(f"{_named(path)} holds no frame that can be read: it is damaged.")
    # Without a rate it is shown as most videos are; a stated number of frames may be nonsense.
    rate = rate if np.isfinite(rate) and 0.1 <= rate <= 1000 else 25.0
    return Kind(rate, max(1, min(length, 10**7)), frame.shape[:2])


def frames(path: Path) -> Iterator[Array]:
    """Yield the frames of a video as RGB uint8 [H, W, 3], turned upright as the file says."""
    opened = _opened(path)
    try:
        while True:
            read, frame = opened.read()
            if not read:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        opened.release()


def write(path: Path, images: Iterator[Array], rate: float) -> int:
    """Write images of one size, RGB uint8 [H, W, 3], as a video; return their number.

    Refusal where OpenCV cannot write it.
    """
    writer, count = None, 0
    try:
        for image in images:
            if writer is None:
                size = image.shape[1], image.shape[0]
                code = cv2.VideoWriter.fourcc(*CODEC)
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, size)
                if not writer.isOpened():
                    raise Refusal("this OpenCV cannot write videos (mp4v in .mp4).")
            writer.write(np.ascontiguousarray(image[..., ::-1]))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    return count


def _opened(path: Path) -> cv2.VideoCapture:
    os.environ.update(_OPTIONS)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # An absolute path is never taken for an address or a pattern of file names.
        opened = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    except (cv2.error, UnicodeError):
        opened = None
    if opened is None or not opened.isOpened():
        raise Refusal(f"{_named(path)} cannot be read as a video: it is damaged or no video.")
    return opened


def _named(path: Path) -> str:
    return inert(str(path))

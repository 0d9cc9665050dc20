"""The canvas of a street scene: image and label of what a pinhole camera sees.

A point X metres right of the camera, Y above the road and Z ahead lands in the image at
    u = u0 + f X / Z,    v = v0 + f (h - Y) / Z
with the focal length f and the vanishing point (u0, v0) in pixels, the camera h metres high.
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from madan import labels
from madan.miniature.appearance import Colour, Look, Span

Point = tuple[float, float, float]

VOID = "void"
IDS = {name: train_id for train_id, name in enumerate(labels.CLASSES)} | {VOID: labels.IGNORE}
GROUND = np.isin(np.arange(256), [IDS["road"], IDS["sidewalk"], IDS["terrain"]])
FAR = 90.0  # metres; nothing but the skyline stands further away
OVERSAMPLING = 2

# By how much hue, saturation and value of a class's things vary in any look; 0.5 is every hue.
# fmt: off
JITTER: Mapping[str, Colour] = {
    "road": (.03, .04, .05), "sidewalk": (.03, .06, .06), "building": (.05, .10, .11),
    "wall": (.04, .07, .08), "fence": (.04, .09, .08), "pole": (.08, .05, .07),
    "traffic light": (.04, .08, .06), "traffic sign": (.02, .10, .08),
    "vegetation": (.04, .09, .08), "terrain": (.03, .09, .07), "sky": (.03, .06, .05),
    "person": (.50, .25, .18), "rider": (.50, .20, .18), "car": (.06, .10, .13),
    "truck": (.50, .20, .15), "bus": (.04, .10, .09), "train": (.04, .10, .09),
    "motorcycle": (.50, .15, .12), "bicycle": (.25, .15, .08),
}
# fmt: on

TYRE: Colour = (22, 22, 24)
BARK: Colour = (76, 57, 42)
SKIN: Colour = (205, 160, 130)
PALE: Colour = (226, 226, 218)
TAIL_LIGHT: Colour = (205, 30, 28)
HEADLIGHT: Colour = (250, 248, 225)
SIGNALS: tuple[Colour, ...] = ((240, 40, 30), (245, 190, 40), (40, 225, 110))


@dataclass(frozen=True)
class Camera:
    """The symbols of the projection above: u0, v0, f and h."""

    u0: float
    v0: float
    focal: float
    height: float


@dataclass(frozen=True)
class Street:
    """A straight road between two kerbs, with a pavement and perhaps grass on either side."""

    left: float
    right: float
    pavement: float
    grass: Mapping[int, float]  # its width on the left (-1) and on the right (1), often none

    def kerb(self, side: int) -> float:
        """Give the X where road and pavement meet."""
        return self.left if side < 0 else self.right

    def edge(self, side: int) -> float:
        """Give the X where the pavement ends."""
        return self.kerb(side) + side * self.pavement

    def plot(self, side: int) -> float:
        """Give the X where houses and gardens may begin."""
        return self.edge(side) + side * self.grass[side]

    def lane(self, place: float) -> float:
        """Give the X at a fraction of the road's width, 0 at the left kerb."""
        return self.left + place * (self.right - self.left)


class Canvas:
    """Two sheets drawn in step: colours, and class (low byte) with depth in decimetres above it."""

    def __init__(
        self,
        size: tuple[int, int],
        camera: Camera,
        street: Street,
        look: Look,
        shape: Generator,
        paint: Generator,
    ) -> None:
        """Start with sky everywhere; `paint` may never decide what reaches the label."""
        self.height, self.width = size
        self.camera, self.street, self.look = camera, street, look
        self.shape, self.paint = shape, paint
        self.sun_side = int(paint.choice((-1, 1)))
        self.glass = lit((60, 70, 85), 0.7 + 0.5 * look.sun)
        self.colours = Image.new("RGB", (self.width, self.height))
        self.stamps = Image.new("I", (self.width, self.height), stamp("sky", FAR))
        self._colour_pen = ImageDraw.Draw(self.colours)
        self._stamp_pen = ImageDraw.Draw(self.stamps)

    def sheets(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Give train ids and depths in metres, [h,w] each; the ground's depth follows from v."""
        stamps = np.asarray(self.stamps)
        names, depth = stamps & 255, (stamps >> 8).astype(np.float32) / 10
        below = np.maximum(np.arange(self.height)[:, None] + 0.5 - self.camera.v0, 1)
        row_depth = self.camera.focal * self.camera.height / below
        return names, np.where(GROUND[names], row_depth, depth).astype(np.float32)

    def tone(self, name: str) -> Colour:
        """Pick a colour for a thing of that class from the look."""
        tones, spread = self.look.tones[name], JITTER[name]
        tone = tones[int(self.paint.integers(len(tones)))]
        chance = self.paint.uniform(-1, 1, 3).tolist()
        hue, saturation, value = (tone[i] + spread[i] * chance[i] for i in range(3))
        return lit(colorsys.hsv_to_rgb(hue % 1, clip01(saturation), clip01(value)), 255)

    def at(self, x: float, y: float, z: float) -> Span:
        """Project a point in metres to pixels."""
        scale = self.camera.focal / z
        return self.camera.u0 + scale * x, self.camera.v0 + scale * (self.camera.height - y)

    def metres(self, pixels: float, z: float) -> float:
        """Give the length at depth Z that so many pixels of the final image show."""
        return pixels * OVERSAMPLING * z / self.camera.focal

    def patch(self, colour: Colour, corners: Sequence[Point], name: str | None = None) -> None:
        """Fill a polygon given in metres; without a class name it only paints what is there."""
        outline = [self.at(*corner) for corner in corners]
        self._colour_pen.polygon(outline, fill=ink(colour))
        if name:
            depth = sum(corner[2] for corner in corners) / len(corners)
            self._stamp_pen.polygon(outline, fill=stamp(name, depth))

    def face(
        self, colour: Colour, points: Sequence[Span], z: float, name: str | None = None
    ) -> None:
        """Fill a polygon through points (X, Y) that faces the camera."""
        self.patch(colour, [(x, y, z) for x, y in points], name)

    def front(self, colour: Colour, x: Span, y: Span, z: float, name: str | None = None) -> None:
        """Fill a rectangle that faces the camera."""
        corners = [(x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z), (x[1], y[0], z)]
        self.patch(colour, corners, name)

    def along(self, colour: Colour, x: float, y: Span, z: Span, name: str | None = None) -> None:
        """Fill an upright rectangle that runs along the street."""
        corners = [(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])]
        self.patch(colour, corners, name)

    def flat(
        self, colour: Colour, x: Span, z: Span, name: str | None = None, y: float = 0.0
    ) -> None:
        """Fill a level rectangle, by default on the ground."""
        corners = [(x[0], y, z[1]), (x[1], y, z[1]), (x[1], y, z[0]), (x[0], y, z[0])]
        self.patch(colour, corners, name)

    def disc(
        self, colour: Colour, x: float, y: float, radius: float, z: float, name: str | None = None
    ) -> None:
        """Fill a disc that faces the camera."""
        box = [self.at(x - radius, y + radius, z), self.at(x + radius, y - radius, z)]
        self._colour_pen.ellipse(box, fill=ink(colour))
        if name:
            self._stamp_pen.ellipse(box, fill=stamp(name, z))

    def wheel(self, x: float, radius: float, z: float, thick: float, name: str) -> None:
        """Draw a wheel in profile: an open rim, labelled as if it were solid like real labels."""
        box = [self.at(x - radius, 2 * radius, z), self.at(x + radius, 0, z)]
        self._colour_pen.ellipse(box, outline=ink(TYRE), width=self._pen_width(thick, z))
        self._stamp_pen.ellipse(box, fill=stamp(name, z))

    def bar(
        self,
        colour: Colour,
        points: Sequence[Span],
        z: float,
        thick: float,
        name: str | None = None,
    ) -> None:
        """Draw a bent bar through points (X, Y)."""
        outline, width = [self.at(x, y, z) for x, y in points], self._pen_width(thick, z)
        self._colour_pen.line(outline, fill=ink(colour), width=width)
        if name:
            self._stamp_pen.line(outline, fill=stamp(name, z), width=width)

    def shadow(self, x: float, width: float, z: Span) -> None:
        """Darken the ground under a thing, more under the sun."""
        left, bottom = self.at(x - width / 2, 0, z[0])
        right, top = self.at(x + width / 2, 0, z[0])[0], self.at(x, 0, z[1])[1]
        shade = lit(self.tone("road"), 0.6 - 0.2 * self.look.sun)
        self._colour_pen.ellipse([left, top - 1, right, bottom + 1], fill=ink(shade))

    def backdrop(self, colour: Colour, box: list[float], name: str, round_top: bool) -> None:
        """Fill a far shape given in pixels: left, top, right, bottom."""
        left, top, right, bottom = box
        for pen, fill in ((self._colour_pen, ink(colour)), (self._stamp_pen, stamp(name, FAR))):
            if round_top:
                pen.ellipse([left, top, right, 2 * bottom - top], fill)
            else:
                pen.rectangle(box, fill)

    def _pen_width(self, thick: float, z: float) -> int:
        return max(OVERSAMPLING, round(thick * self.camera.focal / z))


def stamp(name: str, depth: float) -> int:
    """Pack a class name and a depth in metres into one integer."""
    return IDS[name] | int(10 * depth) << 8


def clip01(value: float) -> float:
    """Limit a number to 0..1."""
    return min(1.0, max(0.0, value))


def ink(colour: Colour) -> tuple[int, int, int]:
    """Round and clip a colour for Pillow."""
    r, g, b = colour
    return max(0, min(255, int(r))), max(0, min(255, int(g))), max(0, min(255, int(b)))


def lit(colour: Colour, light: float) -> Colour:
    """Scale a colour by the light that falls on it."""
    return colour[0] * light, colour[1] * light, colour[2] * light


def blend(colour: Colour, other: Colour, share: float) -> Colour:
    """Mix a share of another colour into a colour."""
    r, g, b = (a + share * (o - a) for a, o in zip(colour, other, strict=True))
    return r, g, b


# --- Sky, ground and skyline: everything else stands in front of them ------------------------

"""The miniature world: four domains of street scenes with their labels.

`gta5` and `synthia` stand for the two sources of the paper, `cityscapes` and `bdd100k` for its two
targets, each with a viewpoint, a class mix and a look of its own, so that every step of MADAN has a
gap to close.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import exp, log

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from madan.miniature import scene
from madan.miniature.appearance import LOOKS, Look, Span
from madan.miniature.canvas import FAR, GROUND, IDS, OVERSAMPLING, Camera, Canvas, Street

Image8 = NDArray[np.uint8]
Film = NDArray[np.float32]
Thing = tuple[float, Callable[[Canvas], None]]  # the depth that orders it, how to draw it


@dataclass(frozen=True)
class Content:
    """What a domain's streets hold; pairs are mean and standard deviation, lengths in metres."""

    horizon: Span  # in image heights from the top
    camera: Span
    focal: Span  # in image widths
    yaw: float  # largest shift of the vanishing point, in image widths
    road: Span
    pavement: Span
    grass: float  # chances, for each side of the street
    wall: float
    fence: float
    garden: float  # chance of a plot without a house
    bonnet: float  # chance that the camera's own car is in view
    rim: Span  # how much of it then, least and most, in image heights
    things: Mapping[str, float]  # mean number in a scene


# fmt: off
CONTENTS = {
    "gta5": Content(
        horizon=(0.47, 0.04), camera=(1.6, 0.25), focal=(0.58, 0.06), yaw=0.16,
        road=(10, 2), pavement=(3, 0.8), grass=0.65, wall=0.45, fence=0.25, garden=0.35,
        bonnet=0, rim=(0, 0),
        things={
            "train": 0.5, "truck": 1.4, "car": 3.5, "tree": 4.5, "lamp": 4, "person": 1,
            "traffic sign": 1.5, "traffic light": 2,
        },
    ),
    "synthia": Content(
        horizon=(0.36, 0.09), camera=(2.4, 0.9), focal=(0.56, 0.08), yaw=0.25,
        road=(8, 2), pavement=(4, 1), grass=0, wall=0, fence=0.5, garden=0.15,
        bonnet=0, rim=(0, 0),
        things={
            "bus": 0.9, "car": 3, "tree": 3.5, "lamp": 4, "person": 6.5,
            "traffic sign": 3, "traffic light": 1.5,
            "bicycle": 1.6, "ridden bicycle": 1.4, "motorcycle": 0.6, "ridden motorcycle": 0.5,
        },
    ),
    "cityscapes": Content(
        horizon=(0.44, 0.02), camera=(1.35, 0.1), focal=(0.62, 0.04), yaw=0.1,
        road=(7.5, 1.5), pavement=(3, 0.8), grass=0.45, wall=0.3, fence=0.35, garden=0.25,
        bonnet=0.8, rim=(0.03, 0.06),
        things={
            "train": 0.4, "bus": 0.5, "truck": 0.6, "car": 4, "tree": 5.5, "lamp": 4,
            "person": 3.5, "traffic sign": 2.5, "traffic light": 1.5,
            "bicycle": 0.9, "ridden bicycle": 0.9, "motorcycle": 0.35, "ridden motorcycle": 0.4,
        },
    ),
    "bdd100k": Content(
        horizon=(0.5, 0.04), camera=(1.5, 0.15), focal=(0.5, 0.04), yaw=0.12,
        road=(13, 2.5), pavement=(3.5, 0.8), grass=0.3, wall=0.35, fence=0.35, garden=0.2,
        bonnet=0.6, rim=(0.04, 0.1),
        things={
            "train": 0.4, "bus": 0.6, "truck": 1, "car": 5.5, "tree": 3.5, "lamp": 5,
            "person": 3, "traffic sign": 2.5, "traffic light": 3,
            "bicycle": 0.7, "ridden bicycle": 0.8, "motorcycle": 0.4, "ridden motorcycle": 0.4,
        },
    ),
}
# fmt: on

# How to draw it, its length in metres, its nearest depth, and its lanes as shares of the road.
VEHICLES: dict[str, tuple[Callable[..., None], float, float, tuple[float, ...]]] = {
    "train": (scene.tram, 18, 9, (0.3, 0.7)),
    "bus": (scene.bus, 10, 8, (0.2, 0.8)),
    "truck": (scene.truck, 7.5, 8, (0.2, 0.8)),
    "car": (scene.car, 4.2, 4.5, (0.14, 0.3, 0.7, 0.86)),
}

# How to draw it, its nearest and furthest depth, and how far from the kerb it may stand.
FURNITURE: dict[str, tuple[Callable[..., None], float, float, float]] = {
    "tree": (scene.tree, 6, 50, 4.5),
    "lamp": (scene.lamp, 5, 35, 0.8),
    "traffic sign": (scene.sign, 4.5, 18, 1),
    "traffic light": (scene.traffic_light, 5, 20, 0.8),
}

SPLITS = {
    "gta5": ("train", "val", "test"),
    "synthia": ("train",),
    "cityscapes": ("train", "val", "test"),
    "bdd100k": ("train", "val", "test"),
}


def draw(
    domain: str,
    split: str,
    index: int,
    *,
    seed: int,
    size: tuple[int, int],
    look: str | None = None,
) -> tuple[Image8, Image8]:
    """Draw one scene: image uint8 [h,w,3] and train ids uint8 [h,w], 255 where ignored.

    The scene depends on seed, domain, split, index and size alone; another domain's `look` changes
    its colours, never its label. Raises ValueError for an unknown domain, split or look, for a
    negative seed or index and for a size below 16 pixels.
    """
    check(domain, split, seed, size)
    look = look or domain
    if look not in LOOKS:
        raise ValueError(f"There is no look {look!r}; the looks are {', '.join(LOOKS)}.")
    if index < 0:
        raise ValueError(f"Scenes are counted from 0; {index} is negative.")
    which = [seed, list(CONTENTS).index(domain), SPLITS[domain].index(split), index]
    shape, paint = (np.random.default_rng([*which, stream]) for stream in (0, 1))
    canvas = compose(CONTENTS[domain], LOOKS[look], shape, paint, size)
    names, depth = canvas.sheets()
    label = names[::OVERSAMPLING, ::OVERSAMPLING].astype(np.uint8)
    return develop(canvas, names, depth), label


def check(domain: str, split: str, seed: int, size: tuple[int, int]) -> None:
    """Raise ValueError for a domain, split, seed or size (h, w) of which no scene can be drawn."""
    if domain not in CONTENTS:
        raise ValueError(f"There is no domain {domain!r}; the domains are {', '.join(CONTENTS)}.")
    if split not in SPLITS[domain]:
        raise ValueError(f"{domain} has no split {split!r}, only {', '.join(SPLITS[domain])}.")
    if seed < 0:
        raise ValueError(f"Seeds are counted from 0; {seed} is negative.")
    if min(size) < 16:
        raise ValueError(f"A scene needs at least 16 x 16 pixels, not {size[0]} x {size[1]}.")


# --- What stands where -----------------------------------------------------------------------


def compose(
    content: Content, look: Look, shape: Generator, paint: Generator, size: tuple[int, int]
) -> Canvas:
    """Plan a scene of size (h, w) with the stream `shape`, colour it with the stream `paint`."""
    fine = (OVERSAMPLING * size[0], OVERSAMPLING * size[1])
    street = lay_street(content, shape)
    canvas = Canvas(fine, place_camera(content, fine, shape), street, look, shape, paint)
    # From the road, plots are hidden by barriers, and both by all that stands before them.
    layers: list[list[Thing]] = [
        [*plots(content, street, shape)],
        [*barriers(content, street, shape)],
        [
            *furniture(content, street, shape),
            *traffic(content, street, shape),
            *people(content, street, shape),
        ],
    ]
    scene.sky(canvas)
    scene.ground(canvas)
    scene.skyline(canvas)
    for layer in layers:
        for _, paint_thing in sorted(layer, key=lambda thing: -thing[0]):
            paint_thing(canvas)
    if shape.random() < content.bonnet:
        scene.bonnet(canvas, shape.uniform(*content.rim))
    return canvas


def place_camera(content: Content, size: tuple[int, int], rng: Generator) -> Camera:
    """Set up the camera for a canvas of size (height, width)."""
    height, width = size
    return Camera(
        u0=width * (0.5 + content.yaw * rng.uniform(-1, 1)),
        v0=height * float(np.clip(rng.normal(*content.horizon), 0.12, 0.6)),
        focal=width * max(0.4, rng.normal(*content.focal)),
        height=max(1.1, rng.normal(*content.camera)),
    )


def lay_street(content: Content, rng: Generator) -> Street:
    """Choose the street's widths; the camera stands somewhere near its middle."""
    width = max(5.0, rng.normal(*content.road))
    middle = rng.uniform(-0.25, 0.25) * width
    grass = {side: rng.uniform(2, 6) * (rng.random() < content.grass) for side in (-1, 1)}
    pavement = max(1.5, rng.normal(*content.pavement))
    return Street(middle - width / 2, middle + width / 2, pavement, grass)


def plots(content: Content, street: Street, rng: Generator) -> Iterator[Thing]:
    """Line both sides of the street with houses and gardens."""
    for side in (-1, 1):
        x, z = street.plot(side) + side * rng.uniform(0.3, 1.5), rng.uniform(1.5, 6)
        while z < 70:
            end = z + rng.uniform(5, 14)
            if rng.random() >= content.garden:
                storeys = int(rng.integers(2, 6))
                yield end, partial(scene.house, x=x, z=(z, end), storeys=storeys, side=side)
            else:
                for _ in range(rng.integers(1, 4)):
                    depth, away = max(5.0, rng.uniform(z, end)), side * rng.uniform(0, 3)
                    yield depth, partial(scene.tree, x=x + away, z=depth, side=side)
            z = end


def barriers(content: Content, street: Street, rng: Generator) -> Iterator[Thing]:
    """Close some plots off with a wall or a fence."""
    for side in (-1, 1):
        chance = rng.random()
        x = street.plot(side) - side * rng.uniform(0, 0.8)
        z = (rng.uniform(3, 9), rng.uniform(18, 45))
        if chance < content.wall:
            yield z[1], partial(scene.wall, x=x, z=z, height=rng.uniform(1.5, 2.9))
        elif chance < content.wall + content.fence:
            yield z[1], partial(scene.fence, x=x, z=z, height=rng.uniform(1.2, 2.1))


def furniture(content: Content, street: Street, rng: Generator) -> Iterator[Thing]:
    """Put trees, lamps, signs and traffic lights on the pavements."""
    for kind, (draw_it, nearest, furthest, reach) in FURNITURE.items():
        for _ in range(rng.poisson(content.things.get(kind, 0))):
            side, z = int(rng.choice((-1, 1))), depth_of(nearest, furthest, rng)
            x = street.kerb(side) + side * rng.uniform(0.2, reach)
            yield z, partial(draw_it, x=x, z=z, side=side)


def traffic(content: Content, street: Street, rng: Generator) -> Iterator[Thing]:
    """Fill the lanes, large vehicles first, so that none stands in another."""
    taken: list[tuple[float, Span]] = []
    for kind, (draw_it, length, nearest, lanes) in VEHICLES.items():
        for _ in range(rng.poisson(content.things.get(kind, 0))):
            for _ in range(8):
                x, z = street.lane(float(rng.choice(lanes))), depth_of(nearest, 35, rng)
                if any(abs(x - a) < 2.5 and z < b[1] and b[0] < z + length for a, b in taken):
                    continue
                taken.append((x, (z - 1, z + length + 1)))
                if kind == "train":
                    yield FAR, partial(scene.rails, x=x)
                yield z, partial(draw_it, x=x, z=z, oncoming=x < street.lane(0.5))
                break


def people(content: Content, street: Street, rng: Generator) -> Iterator[Thing]:
    """Let people walk the pavements, cross the road and ride along the kerb."""
    for _ in range(rng.poisson(content.things.get("person", 0))):
        side, z = int(rng.choice((-1, 1))), depth_of(3.5, 22, rng)
        x = street.kerb(side) + side * rng.uniform(0.2, street.pavement)
        if rng.random() < 0.25:
            x = rng.uniform(street.left, street.right)
        yield z, partial(scene.person, x=x, z=z)
    for kind, draw_it in (("bicycle", scene.bicycle), ("motorcycle", scene.motorcycle)):
        for name in (kind, f"ridden {kind}"):
            for _ in range(rng.poisson(content.things.get(name, 0))):
                side, z = int(rng.choice((-1, 1))), depth_of(4, 13, rng)
                x = street.kerb(side) - side * rng.uniform(-1.2, 1.6)
                way = int(rng.choice((-1, 1)))
                yield z, partial(draw_it, x=x, z=z, way=way, ridden=name != kind)


def depth_of(nearest: float, furthest: float, rng: Generator) -> float:
    """Draw a depth evenly in log Z, so that large and small views are equally common."""
    return exp(rng.uniform(log(nearest), log(furthest)))


# --- How it is filmed ------------------------------------------------------------------------


def develop(canvas: Canvas, names: NDArray[np.int32], depth: Film) -> Image8:
    """Turn a canvas into the image uint8 [h,w,3]: surfaces, shadows, haze, then the camera."""
    look = canvas.look
    film = np.asarray(canvas.colours, dtype=np.float32) / 255
    light = _grain(canvas, names) * (1 - 0.45 * look.sun * _shadows(canvas, names, depth))
    # Haze thickens with distance, but never hides a thing.
    haze = 0.7 * np.minimum(0.75, 1 - np.exp(-look.fog * np.minimum(depth, 60) / 20))
    haze = np.where(names == IDS["sky"], 0, haze)[..., None]
    film = film * light[..., None].astype(np.float32) * (1 - haze)
    film = film + haze * (np.array(look.fog_colour, dtype=np.float32) / 255)
    height, width = (side // OVERSAMPLING for side in names.shape)
    film = film.reshape(height, OVERSAMPLING, width, OVERSAMPLING, 3).mean(axis=(1, 3))
    return _photograph(film, look, canvas.paint)


def _grain(canvas: Canvas, names: NDArray[np.int32]) -> Film:
    """Give the factor [h,w] of the surface noise; classes with one grain share its field."""
    factor = np.ones(names.shape, dtype=np.float32)
    for grain in sorted({grain for _, grain in canvas.look.texture.values()}):
        strength = np.zeros(256, dtype=np.float32)
        for name, (amount, its_grain) in canvas.look.texture.items():
            strength[IDS[name]] = amount * (its_grain == grain)
        factor += strength[names] * _noise(names.shape, grain * canvas.height / 64, canvas.paint)
    return factor


def _noise(shape: tuple[int, ...], grain: float, rng: Generator) -> Film:
    height, width = (int(side / max(1.0, grain)) + 2 for side in shape)
    coarse = Image.fromarray(rng.standard_normal((height, width), dtype=np.float32))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _shadows(canvas: Canvas, names: NDArray[np.int32], depth: Film) -> NDArray[np.bool_]:
    """Mark the ground [h,w] in the shadow of the houses on the sun's side, each of its height."""
    side, street, camera = canvas.sun_side, canvas.street, canvas.camera
    width = street.right - street.left
    reach = street.edge(side) - side * (canvas.paint.uniform(0.5, 0.6 * width))
    roofs = reach + canvas.paint.normal(0, 1.2, 20).astype(np.float32)
    plot = np.minimum(depth / 5, 19).astype(np.intp)
    x = (np.arange(canvas.width, dtype=np.float32) - camera.u0) * depth / camera.focal
    return GROUND[names] & (side * x > side * roofs[plot]) & (canvas.look.sun > 0.3)


def _photograph(film: Film, look: Look, rng: Generator) -> Image8:
    """Expose, colour and darken at the rim, blur and add the sensor's noise."""
    film = np.clip(film * look.gain * (1 + 0.08 * rng.normal()), 0, 1.2)
    grey = film.mean(axis=2, keepdims=True)
    film = grey + (film - grey) * look.saturation * (1 + 0.08 * rng.normal())
    film = np.clip(film * np.array(look.tint, dtype=np.float32), 0, 1) ** look.gamma
    v, u = (np.linspace(-0.5, 0.5, side, dtype=np.float32) ** 2 for side in film.shape[:2])
    pixels = 255 * film * (1 - 1.4 * look.vignette * (v[:, None] + u))[..., None]
    if look.blur:
        blur = ImageFilter.GaussianBlur(look.blur * film.shape[0] / 64)
        sharp = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        pixels = np.asarray(sharp.filter(blur), dtype=np.float32)
    pixels = pixels + look.noise * rng.standard_normal(film.shape, dtype=np.float32)
    image: Image8 = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return image

"""Street scenes: one function for each kind of thing that is drawn on the canvas."""

from math import cos, pi, sin

import numpy as np
from PIL import ImageDraw

from madan.miniature.appearance import Colour, Span
from madan.miniature.canvas import (
    BARK,
    FAR,
    HEADLIGHT,
    PALE,
    SIGNALS,
    SKIN,
    TAIL_LIGHT,
    TYRE,
    VOID,
    Canvas,
    blend,
    ink,
    lit,
)


def sky(c: Canvas) -> None:
    """Fade the sky towards a pale horizon."""
    zenith, pen = c.tone("sky"), ImageDraw.Draw(c.colours)
    for row in range(int(c.camera.v0) + 2):
        share = 0.4 * row / max(1.0, c.camera.v0)
        pen.line([(0, row), (c.width, row)], fill=ink(blend(zenith, (246, 246, 244), share)))


def ground(c: Canvas) -> None:
    """Lay pavements, grass, the road and its markings."""
    street, stone, asphalt = c.street, c.tone("sidewalk"), c.tone("road")
    # The nearest Z in view lies on the bottom row.
    near = 0.9 * c.camera.focal * c.camera.height / (c.height - c.camera.v0)
    for side in (-1, 1):
        name = "terrain" if street.grass[side] else "sidewalk"
        verge = c.tone("terrain") if street.grass[side] else lit(stone, 0.97)
        c.flat(verge, (0, side * 200), (near, 10 * FAR), name)
        c.flat(stone, (0, street.edge(side)), (near, 10 * FAR), "sidewalk")
    c.flat(asphalt, (street.left, street.right), (near, FAR), "road")
    for side in (-1, 1):
        kerb = street.kerb(side)
        c.flat(lit(stone, 0.72), (kerb - 0.09, kerb + 0.09), (near, FAR), "sidewalk")
    markings(c, near, blend(asphalt, (245, 245, 240), 0.6))


def markings(c: Canvas, near: float, white: Colour) -> None:
    """Paint a dashed middle line, two edge lines and sometimes a zebra crossing."""
    street, middle = c.street, c.street.lane(0.5)
    for z in np.arange(c.shape.uniform(1.2, 4) + near, 50, 5).tolist():
        c.flat(white, (middle - 0.09, middle + 0.09), (z, z + 2.2))
    for side in (-1, 1):
        x = street.kerb(side) - 0.3 * side
        c.flat(white, (x - 0.06, x + 0.06), (near, FAR))
    if c.shape.random() < 0.2:
        z = c.shape.uniform(7, 14)
        for x in np.arange(street.left + 0.7, street.right - 1.0, 1.1).tolist():
            c.flat(white, (x, x + 0.55), (z, z + 3))


def skyline(c: Canvas) -> None:
    """Stand distant trees and houses on the horizon."""
    u, v0 = -0.04 * c.width, c.camera.v0
    while u < c.width:
        width = c.shape.uniform(0.04, 0.14) * c.width
        height = c.shape.uniform(0.02, 0.12) * c.height
        green = bool(c.shape.random() < 0.45)
        name = "vegetation" if green else "building"
        c.backdrop(lit(c.tone(name), 0.9), [u, v0 - height, u + width, v0 + 1], name, green)
        u += 0.75 * width


# --- Beside the road -------------------------------------------------------------------------


def house(c: Canvas, x: float, z: Span, storeys: int, side: int) -> None:
    """Draw a house: the facade along the street, then the gable end that faces the camera."""
    paint, top = c.tone("building"), 3.0 * storeys + 0.6
    facade = lit(paint, 1 - 0.18 * c.look.sun * side * c.sun_side)
    gable = lit(paint, 1 - 0.1 * c.look.sun)
    c.along(facade, x, (0, top), z, "building")
    c.front(gable, (x, x + 12 * side), (0, top), z[0], "building")
    c.along(lit(facade, 0.72), x, (0, 0.5), z)
    c.along(lit(facade, 1.15), x, (top - 0.45, top), z)
    c.front(lit(gable, 1.12), (x, x + 12 * side), (top - 0.35, top), z[0])
    if z[0] < 50:
        windows(c, facade, x, z, storeys, side)


def windows(c: Canvas, facade: Colour, x: float, z: Span, storeys: int, side: int) -> None:
    """Put rows of panes, dark or reflecting the sky, and doors on the ground floor."""
    pane = lit(facade, 1 - c.look.windows)
    if c.paint.random() < 0.3:  # they mirror the sky
        pane = blend(facade, (240, 244, 248), c.look.windows)
    columns = max(1, int((z[1] - z[0]) / 2.3))
    step = (z[1] - z[0]) / columns
    door = int(c.shape.integers(columns))
    for storey in range(storeys):
        y = (3 * storey + 1.1, 3 * storey + 2.5)
        for column in range(columns):
            start = z[0] + (column + 0.25) * step
            sill = 0.0 if storey == 0 and column == door else y[0]
            c.along(pane, x, (sill, y[1]), (start, start + 0.5 * step))
        for column in range(4):
            start = x + side * (column + 0.25) * 3
            c.front(pane, (start, start + 1.4 * side), y, z[0])


def wall(c: Canvas, x: float, z: Span, height: float) -> None:
    """Draw a masonry wall: courses, piers and a coping."""
    stone = c.tone("wall")
    c.along(stone, x, (0, height), z, "wall")
    for y in np.arange(0.4, height - 0.2, 0.45).tolist():
        c.along(lit(stone, 0.82), x, (y, y + 0.09), z)
    for start in np.arange(z[0], z[1], 3.5).tolist():
        c.along(lit(stone, 0.9), x, (0, height), (start, start + 0.45))
    c.along(lit(stone, 1.22), x, (height - 0.22, height), z)


def fence(c: Canvas, x: float, z: Span, height: float) -> None:
    """Draw a picket fence, the gaps labelled too as in the real annotations."""
    wood = c.tone("fence")
    c.along(lit(wood, 0.62), x, (0, height), z, "fence")
    for start in np.arange(z[0], z[1], 0.8).tolist():
        c.along(lit(wood, 1.15), x, (0, height), (start, start + 0.38))
    for y in (0.25 * height, 0.8 * height):
        c.along(lit(wood, 1.05), x, (y, y + 0.12), z)


def tree(c: Canvas, x: float, z: float, side: int) -> None:
    """Draw a tree: a trunk under a heap of leafy discs, light on top."""
    height, leaf = c.shape.uniform(3.5, 8), c.tone("vegetation")
    bark = lit(BARK, 0.8 + 0.3 * c.look.sun)
    c.front(bark, (x - 0.17, x + 0.17), (0, 0.55 * height), z, "vegetation")
    for share in sorted(c.shape.uniform(0.45, 0.9, 9).tolist()):
        aside = height * c.shape.uniform(-0.22, 0.22)
        radius = height * c.shape.uniform(0.12, 0.22)
        light = 0.72 + 0.5 * (share - 0.45) / 0.45 + 0.08 * c.paint.normal()
        c.disc(lit(leaf, light), x + aside, share * height, radius, z, "vegetation")


def pole(c: Canvas, x: float, z: float, height: float, width: float) -> Colour:
    """Draw a bare pole, never thinner than a pixel and a half, and give its colour."""
    paint, half = c.tone("pole"), max(width, c.metres(1.5, z)) / 2
    c.front(paint, (x - half, x + half), (0, height), z, "pole")
    c.front(lit(paint, 1.15), (x - half, x - 0.3 * half), (0, height), z)
    return paint


def lamp(c: Canvas, x: float, z: float, side: int) -> None:
    """Draw a street lamp whose arm reaches over the road."""
    height = c.shape.uniform(4.5, 8)
    paint = pole(c, x, z, height, 0.2)
    if c.shape.random() < 0.6:
        reach = x - side * c.shape.uniform(1.4, 2.2)
        c.bar(paint, [(x, height), (reach, height + 0.15)], z, 0.16, "pole")
        c.bar(lit(paint, 0.7), [(reach, height), (reach - 0.5 * side, height)], z, 0.24, "pole")


def sign(c: Canvas, x: float, z: float, side: int) -> None:
    """Draw a traffic sign: a limit disc, a warning triangle or a blue-type square."""
    y, half = c.shape.uniform(2.3, 3.2), c.shape.uniform(0.4, 0.65)
    pole(c, x, z, y, 0.12)
    rim = c.tone("traffic sign")
    inside = blend(rim, (228, 228, 224), 0.85)
    kind = int(c.shape.integers(3))
    for size, colour in ((half, rim), (0.5 * half, inside)):
        if kind == 0:
            c.disc(colour, x, y, size, z, "traffic sign")
        elif kind == 1:
            low = y - 0.8 * size
            c.face(colour, [(x - size, low), (x, y + size), (x + size, low)], z, "traffic sign")
        else:
            c.front(colour, (x - size, x + size), (y - size, y + size), z, "traffic sign")


def traffic_light(c: Canvas, x: float, z: float, side: int) -> None:
    """Draw a traffic light: a housing with one of three lamps lit."""
    bottom, case = c.shape.uniform(2.3, 3.4), c.tone("traffic light")
    pole(c, x, z, bottom, 0.14)
    c.front(case, (x - 0.32, x + 0.32), (bottom, bottom + 1.45), z, "traffic light")
    on = int(c.paint.integers(3))
    for place, colour in enumerate(SIGNALS):
        light = colour if place == on else lit(case, 0.5)
        c.disc(light, x, bottom + 1.2 - 0.47 * place, 0.2, z)


# --- On the road -----------------------------------------------------------------------------


def block(c: Canvas, paint: Colour, x: Span, y: Span, z: Span, name: str) -> None:
    """Draw the faces of a block that the camera can see: a side, the top and the near end."""
    side = inner(x)
    c.along(lit(paint, 0.82), side, y, z, name)
    if c.camera.height > y[1]:
        c.flat(lit(paint, 1.12), x, z, name, y=y[1])
    c.front(paint, x, y, z[0], name)


def inner(x: Span) -> float:
    """Give the X of a block's side that can be seen from X = 0."""
    return min(x, key=abs)


def wheels(c: Canvas, x: Span, z: Span, radius: float, name: str) -> None:
    """Draw two wheels on the visible side and the two near ones from behind."""
    side = inner(x)
    for hub in (z[0] + 0.2 * (z[1] - z[0]), z[0] + 0.8 * (z[1] - z[0])):
        turns = [pi * k / 4 for k in range(8)]
        rim = [(side, radius * (1 + sin(a)), hub + radius * cos(a)) for a in turns]
        c.patch(TYRE, rim, name)
    for left in (x[0] + 0.04, x[1] - 0.36):
        c.front(TYRE, (left, left + 0.32), (0, 1.2 * radius), z[0], name)


def lights(c: Canvas, x: Span, y: Span, z: float, oncoming: bool) -> None:
    """Put two headlights or two tail lights on the near end."""
    colour = HEADLIGHT if oncoming else TAIL_LIGHT
    for left in (x[0] + 0.1, x[1] - 0.42):
        c.front(colour, (left, left + 0.32), y, z)


def car(c: Canvas, x: float, z: float, oncoming: bool) -> None:
    """Draw a car: a body, a narrower cabin with windows, lights, a number plate and wheels."""
    paint, roof = c.tone("car"), c.shape.uniform(1.4, 1.85)
    body, cabin = (x - 0.9, x + 0.9), (x - 0.7, x + 0.7)
    side, edge = inner(body), inner(cabin)
    z0, z1, z2, z3 = z + 0.15, z + 0.6, z + 2.9, z + 3.6
    c.shadow(x, 2.1, (z - 0.4, z + 1))
    wheels(c, body, (z, z + 4.2), 0.33, "car")
    block(c, paint, body, (0.3, 0.92), (z, z + 4.2), "car")
    flank = [(side, 0.9, z0), (edge, roof, z1), (edge, roof, z2), (side, 0.9, z3)]
    c.patch(lit(paint, 0.8), flank, "car")
    c.patch(c.glass, [(u, v - 0.08, w) for u, v, w in flank])
    if c.camera.height > roof:
        c.flat(lit(paint, 1.15), cabin, (z1, z2), "car", y=roof)
    tail = [(body[0], 0.9, z0), (cabin[0], roof, z1), (cabin[1], roof, z1), (body[1], 0.9, z0)]
    c.patch(lit(paint, 1.05), tail, "car")
    c.patch(c.glass, [(x + 0.82 * (u - x), 0.95 + 0.8 * (v - 0.9), w) for u, v, w in tail])
    lights(c, body, (0.62, 0.8), z, oncoming)
    c.front(PALE, (x - 0.26, x + 0.26), (0.42, 0.56), z)
    c.front(TYRE, body, (0.28, 0.36), z)


def truck(c: Canvas, x: float, z: float, oncoming: bool) -> None:
    """Draw a lorry: a tall plain box, with a cab in front of it when it comes towards us."""
    paint, top = c.tone("truck"), c.shape.uniform(2.9, 3.6)
    body, start = (x - 1.25, x + 1.25), z + (1.8 if oncoming else 0)
    c.shadow(x, 2.7, (z - 0.5, z + 1.5))
    wheels(c, body, (z, z + 7.5), 0.5, "truck")
    block(c, paint, body, (0.6, top), (start, z + 7.5), "truck")
    c.front(lit(paint, 0.88), (x - 1.1, x + 1.1), (0.8, top - 0.15), start)
    c.front(lit(paint, 0.6), (x - 0.05, x + 0.05), (0.8, top - 0.15), start)
    if oncoming:
        cab = (x - 1.1, x + 1.1)
        block(c, lit(paint, 0.8), cab, (0.45, 2.5), (z, start), "truck")
        c.front(c.glass, (x - 0.95, x + 0.95), (1.5, 2.3), z)
    c.front(lit(TYRE, 2), body, (0.5, 0.68), z, "truck")
    lights(c, body, (0.75, 0.98), z, oncoming)


def bus(c: Canvas, x: float, z: float, oncoming: bool) -> None:
    """Draw a bus: a long band of windows, a wide screen and a destination board."""
    paint, body, length = c.tone("bus"), (x - 1.25, x + 1.25), 10
    c.shadow(x, 2.7, (z - 0.5, z + 1.5))
    wheels(c, body, (z, z + length), 0.45, "bus")
    block(c, paint, body, (0.35, 3.1), (z, z + length), "bus")
    for start in np.arange(z + 0.4, z + length - 1.5, 1.9).tolist():
        c.along(c.glass, inner(body), (1.3, 2.45), (start, start + 1.6))
    c.front(c.glass, (x - 1.1, x + 1.1), (1.25, 2.5), z)
    c.front((235, 190, 60), (x - 0.7, x + 0.7), (2.65, 2.95), z)
    lights(c, body, (0.6, 0.85), z, oncoming)
    c.front(PALE, (x - 0.3, x + 0.3), (0.5, 0.66), z)


def tram(c: Canvas, x: float, z: float, oncoming: bool) -> None:
    """Draw a tram: long, two-coloured, a rounded face with one lamp, a pantograph on its roof."""
    paint, body, length, top = c.tone("train"), (x - 1.2, x + 1.2), 18.0, 3.5
    pale = blend(paint, (238, 234, 222), 0.75)
    c.shadow(x, 2.5, (z - 0.3, z + 1.5))
    block(c, pale, body, (0.2, top), (z, z + length), "train")
    c.along(lit(paint, 0.85), inner(body), (0.3, 1.3), (z, z + length))
    for start in np.arange(z + 0.6, z + length - 1, 2.2).tolist():
        c.along(c.glass, inner(body), (1.5, 2.8), (start, start + 1.8))
    arch = [(x - 1.2, top), (x - 0.8, top + 0.4), (x + 0.8, top + 0.4), (x + 1.2, top)]
    c.face(pale, arch, z, "train")
    c.front(paint, body, (0.2, 1.4), z)
    c.front(c.glass, (x - 1.0, x + 1.0), (1.5, 2.9), z)
    c.front((235, 190, 60), (x - 0.5, x + 0.5), (3.1, 3.4), z)
    c.disc(HEADLIGHT if oncoming else TAIL_LIGHT, x, 0.95, 0.22, z)
    c.bar(TYRE, [(x - 0.6, top + 0.4), (x, top + 1.1), (x + 0.6, top + 0.4)], z + 1, 0.1, "train")


def rails(c: Canvas, x: float) -> None:
    """Lay the two rails that a tram needs."""
    steel = lit(c.tone("road"), 0.6)
    for rail in (x - 0.72, x + 0.72):
        c.flat(steel, (rail - 0.06, rail + 0.06), (1.2, FAR))


# --- People and what they ride ---------------------------------------------------------------


def person(c: Canvas, x: float, z: float) -> None:
    """Draw someone walking: two legs, a torso with arms, a head."""
    height, stride = c.shape.uniform(1.6, 1.95), c.shape.uniform(0.05, 0.26)
    top, trousers, skin = c.tone("person"), lit(c.tone("person"), 0.65), skin_tone(c)
    hip, shoulder = 0.5 * height, 0.83 * height
    c.shadow(x, 0.7, (z - 0.1, z + 0.2))
    for foot, light in ((-stride, 0.85), (stride, 1.0)):
        c.bar(lit(trousers, light), [(x + 0.3 * foot, hip), (x + foot, 0)], z, 0.19, "person")
    for hand in (-0.36, 0.36):
        c.bar(lit(top, 0.85), [(x + 0.6 * hand, shoulder), (x + hand, hip)], z, 0.13, "person")
    torso = [(x - 0.27, shoulder), (x + 0.27, shoulder), (x + 0.2, hip), (x - 0.2, hip)]
    c.face(top, torso, z, "person")
    c.disc(lit(skin, 0.3), x, height - 0.13, 0.15, z, "person")  # hair
    c.disc(skin, x, height - 0.19, 0.11, z, "person")


def skin_tone(c: Canvas) -> Colour:
    """Pick a skin colour, brighter under the sun."""
    return lit(SKIN, (0.75 + 0.3 * c.look.sun) * c.paint.uniform(0.5, 1.05))


def bicycle(c: Canvas, x: float, z: float, way: int, ridden: bool) -> None:
    """Draw a bicycle in profile, heading left (-1) or right (1), perhaps with its rider."""
    paint = c.tone("bicycle")
    back, crank, saddle, bars, front = (
        (x + way * ahead, y)
        for ahead, y in ((-0.54, 0.36), (-0.05, 0.32), (-0.2, 0.9), (0.36, 1.0), (0.54, 0.36))
    )
    c.shadow(x, 1.5, (z - 0.1, z + 0.2))
    for hub in (back, front):
        c.wheel(hub[0], 0.36, z, 0.09, "bicycle")
    c.bar(paint, [back, crank, bars, saddle, back], z, 0.11, "bicycle")
    c.bar(paint, [saddle, crank], z, 0.11, "bicycle")
    c.bar(paint, [bars, front], z, 0.11, "bicycle")
    if ridden:
        rider(c, x - 0.2 * way, z, way)


def motorcycle(c: Canvas, x: float, z: float, way: int, ridden: bool) -> None:
    """Draw a motorcycle in profile: fat wheels, a solid engine, tank and seat, a headlight."""
    paint = c.tone("motorcycle")
    c.shadow(x, 2.1, (z - 0.15, z + 0.25))
    for hub in (x - 0.72, x + 0.72):
        c.wheel(hub, 0.36, z, 0.2, "motorcycle")
    engine = ((-0.7, 0.45), (-0.35, 0.7), (0.4, 0.75), (0.35, 0.25), (-0.3, 0.22))
    tank = ((-0.95, 0.92), (-0.85, 0.72), (-0.1, 0.68), (0.5, 0.72), (0.45, 1.02), (-0.1, 0.86))
    for colour, outline in ((lit(TYRE, 2.4), engine), (paint, tank)):
        c.face(colour, [(x + way * ahead, y) for ahead, y in outline], z, "motorcycle")
    fork = [(x + way * ahead, y) for ahead, y in ((0.72, 0.36), (0.42, 1.1), (0.25, 1.18))]
    c.bar(lit(PALE, 0.7), fork, z, 0.12, "motorcycle")
    c.disc(HEADLIGHT, x + 0.56 * way, 0.95, 0.13, z, "motorcycle")
    if ridden:
        rider(c, x - 0.25 * way, z, way)


def rider(c: Canvas, x: float, z: float, way: int) -> None:
    """Draw a rider on a saddle at X: a bent leg, a leaning torso, an arm and a helmet."""
    top, trousers, helmet = c.tone("rider"), lit(c.tone("rider"), 0.6), c.tone("rider")
    leg = [(x, 0.9), (x + 0.34 * way, 0.72), (x + 0.16 * way, 0.28)]
    c.bar(trousers, leg, z, 0.22, "rider")
    torso = ((-0.2, 0.85), (0.16, 0.85), (0.42, 1.42), (0.16, 1.55), (-0.06, 1.4))
    c.face(top, [(x + way * ahead, y) for ahead, y in torso], z, "rider")
    arm = [(x + 0.22 * way, 1.4), (x + 0.4 * way, 1.12), (x + 0.58 * way, 1.06)]
    c.bar(lit(top, 0.85), arm, z, 0.15, "rider")
    c.disc(skin_tone(c), x + 0.36 * way, 1.65, 0.15, z, "rider")
    c.disc(helmet, x + 0.31 * way, 1.73, 0.16, z, "rider")


def bonnet(c: Canvas, height: float) -> None:
    """Draw the camera car's own bonnet over the bottom rows; it belongs to no class."""
    paint = lit(c.tone("car"), 0.7)
    box = [0.05 * c.width, (1 - height) * c.height, 0.95 * c.width, c.height]
    c.backdrop(paint, box, VOID, True)

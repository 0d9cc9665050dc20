"""Looks: how each domain of the drawn world is coloured and filmed.

`gta5` and `synthia` have the looks of renderers, `cityscapes` and `bdd100k` those of two cameras
in two countries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Colour = tuple[float, float, float]
Span = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """How a domain is coloured and filmed."""

    tones: Mapping[str, Sequence[Colour]]  # hue, saturation and value; a thing picks one
    texture: Mapping[str, Span]  # relative strength, grain in pixels of a 64-row image
    sun: float  # 0 overcast, 1 hard shadows
    windows: float  # how much window panes differ from their wall
    fog: float
    fog_colour: Colour
    gain: float
    gamma: float
    saturation: float
    tint: Colour
    noise: float  # standard deviation in grey levels
    blur: float  # standard deviation in pixels of a 64-row image
    vignette: float


# fmt: off
# Hue, saturation and value of each class in the looks gta5, synthia, cityscapes and bdd100k,
# in this order; a thing picks one of its look's tones.
TONES: dict[str, tuple[list[Colour], ...]] = {
    "road": ([(.64, .14, .34)], [(.75, .10, .58)], [(.10, .06, .40)], [(.60, .18, .20)]),
    "sidewalk": ([(.11, .18, .72)], [(.03, .28, .62)], [(.08, .10, .52)], [(.05, .16, .46)]),
    "building": ([(.08, .45, .78), (.02, .50, .62), (.55, .25, .72)],
                 [(.06, .30, .66), (.95, .20, .55), (.16, .25, .75)],
                 [(.09, .22, .50), (.05, .28, .42), (.12, .08, .60)],
                 [(.02, .45, .36), (.07, .30, .52), (.65, .12, .42)]),
    "wall": ([(.07, .30, .62)], [(.60, .10, .50)], [(.09, .12, .45)], [(.04, .25, .34)]),
    "fence": ([(.08, .45, .38)], [(.60, .30, .62)], [(.35, .12, .33)], [(.07, .10, .46)]),
    "pole": ([(.10, .15, .62)], [(.60, .20, .78)], [(.50, .05, .36)], [(.07, .12, .24)]),
    "traffic light": ([(.12, .50, .55)], [(.15, .80, .85)], [(.30, .10, .16)], [(.13, .85, .60)]),
    "traffic sign": ([(.35, .85, .55), (.00, .90, .80), (.60, .85, .80)],
                     [(.00, .80, .90), (.62, .70, .95), (.00, .05, .95)],
                     [(.60, .60, .60), (.00, .65, .62), (.14, .60, .72)],
                     [(.38, .75, .45), (.00, .75, .60), (.14, .80, .80)]),
    "vegetation": ([(.23, .70, .45)], [(.38, .55, .40)], [(.27, .40, .30)], [(.17, .48, .26)]),
    "terrain": ([(.14, .58, .66)], [(.30, .50, .50)], [(.20, .32, .42)], [(.12, .42, .46)]),
    "sky": ([(.59, .42, .93)], [(.52, .25, .80)], [(.58, .05, .90)], [(.08, .45, .92)]),
    "person": ([(.00, .60, .55)], [(.00, .55, .60)], [(.00, .25, .28)], [(.00, .30, .30)]),
    "rider": ([(.00, .50, .50)], [(.00, .50, .50)], [(.00, .30, .30)], [(.00, .40, .30)]),
    "car": ([(.00, .85, .70), (.60, .80, .60), (.15, .80, .85), (.00, .03, .90)],
            [(.50, .45, .75), (.83, .45, .55), (.30, .50, .65), (.00, .03, .30)],
            [(.60, .20, .20), (.60, .05, .55), (.02, .50, .35), (.38, .40, .32)],
            [(.00, .03, .14), (.00, .03, .62), (.62, .30, .30), (.01, .65, .42)]),
    "truck": ([(.10, .50, .70)], [(.10, .50, .70)], [(.10, .15, .55)], [(.10, .10, .66)]),
    "bus": ([(.60, .50, .70)], [(.02, .75, .85)], [(.13, .55, .62)], [(.08, .20, .72)]),
    "train": ([(.48, .70, .60)], [(.75, .40, .70)], [(.97, .55, .45)], [(.58, .20, .52)]),
    "motorcycle": ([(.00, .80, .60)], [(.00, .60, .60)], [(.00, .35, .30)], [(.00, .45, .24)]),
    "bicycle": ([(.00, .60, .30)], [(.85, .50, .45)], [(.60, .10, .18)], [(.05, .30, .20)]),
}

# Strength of the surface noise, relative to the colour, and its grain in pixels of 64 rows.
TEXTURES: dict[str, tuple[Span, ...]] = {
    "road": ((.09, 1), (.03, 3), (.05, 2), (.12, 1)),
    "sidewalk": ((.10, 1), (.04, 3), (.07, 2), (.08, 2)),
    "building": ((.10, 1), (.05, 3), (.10, 2), (.12, 2)),
    "wall": ((.14, 1), (.05, 3), (.10, 2), (.12, 2)),
    "fence": ((.10, 1), (.05, 3), (.10, 1), (.12, 1)),
    "vegetation": ((.35, 1), (.18, 2), (.28, 1), (.34, 1)),
    "terrain": ((.22, 1), (.08, 2), (.16, 1), (.20, 1)),
    "sky": ((.05, 10), (.02, 14), (.03, 14), (.12, 9)),
}


def _column(table: Mapping[str, Sequence[T]], column: int) -> dict[str, T]:
    return {name: row[column] for name, row in table.items()}


LOOKS = {
    "gta5": Look(  # the low warm sun of a game: saturated, hard shadows, crisp
        tones=_column(TONES, 0), texture=_column(TEXTURES, 0),
        sun=0.9, windows=0.55, fog=0.12, fog_colour=(190, 200, 225), gain=1.05, gamma=0.95,
        saturation=1.05, tint=(1.05, 1.0, 0.93), noise=1, blur=0, vignette=0,
    ),
    "synthia": Look(  # an early renderer: cool, bright, flat
        tones=_column(TONES, 1), texture=_column(TEXTURES, 1),
        sun=0.5, windows=0.65, fog=0.08, fog_colour=(200, 215, 230), gain=1.12, gamma=0.85,
        saturation=0.95, tint=(0.95, 1.0, 1.08), noise=2, blur=0, vignette=0,
    ),
    "cityscapes": Look(  # a dash camera under an overcast sky: pale, greenish, hazy, noisy
        tones=_column(TONES, 2), texture=_column(TEXTURES, 2),
        sun=0.25, windows=0.35, fog=0.3, fog_colour=(205, 208, 206), gain=1.22, gamma=0.95,
        saturation=0.62, tint=(0.97, 1.02, 0.95), noise=4, blur=0.4, vignette=0.2,
    ),
    "bdd100k": Look(  # a cheap camera in the evening, after rain: orange sky, dark, hard, grainy
        tones=_column(TONES, 3), texture=_column(TEXTURES, 3),
        sun=0.7, windows=0.75, fog=0.16, fog_colour=(225, 165, 110), gain=1.35, gamma=1.08,
        saturation=0.9, tint=(1.1, 0.97, 0.86), noise=7, blur=0.3, vignette=0.35,
    ),
}
# fmt: on

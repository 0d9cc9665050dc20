"""The folders that dvc.yaml names as outputs: they must exist, also where no job fills them.

`python -m madan.pipeline.outs` is the first command of DVC's stage. It reads params.yaml itself, so
that no value of params.yaml reaches a shell before it is checked.
"""

import sys
from pathlib import Path

from madan import config
from madan.config.schema import Params
from madan.errors import Refusal
from madan.inert import inert

KINDS = (
    "translators", "stylised", "segmenters", "adaptations", "released", "scores", "figures",
)  # fmt: skip


def folders(params: Params) -> list[Path]:
    """Return the folders among the outputs of dvc.yaml, relative to the project's folder."""
    scale = params.scale
    data = ["data/miniature", f"data/verified/{scale}", f"data/prepared/{scale}"]
    shown = ["results/tables", f"results/verify/{scale}"]
    return [Path(path) for path in (*data, *shown, *(f"results/{scale}/{kind}" for kind in KINDS))]


def main() -> None:
    """Make the folders; end with a sentence and exit code 1 where params.yaml is wrong."""
    try:
        for folder in folders(config.load()):
            folder.mkdir(parents=True, exist_ok=True)
    except (Refusal, OSError) as refusal:
        sys.exit(f"madan: {inert(str(refusal))}")


if __name__ == "__main__":
    main()

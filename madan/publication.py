"""What a visitor sees without running: table, metrics and figures of the miniature, for git."""

import shutil
from pathlib import Path

from madan import guard
from madan.graph import Artefact, Graph
from madan.schema import Refusal

BYTES = 3_000_000


def publish(graph: Graph, out: Path) -> list[Path]:
    """Copy results/miou.csv, results/metrics.json and every figure as out/<figure>.png.

    Refusal at another scale, where any of it is not what params.yaml and the package say now, or
    where it is too large for git.
    """
    if graph.params.scale != "miniature":
        raise Refusal(f"scale is {graph.params.scale}; what is published is of scale: miniature.")
    figures = {name: Artefact("figures", name) for name in graph.params.figures}
    behind = graph.ancestry([Artefact("tables", "miou"), *figures.values()])
    wrong = [str(graph.certificate(each)) for each in behind if not guard.sound(graph, each)]
    if wrong:
        raise Refusal(
            f"these are not what params.yaml and the package say now: {' '.join(wrong)}; make them "
            "first: snakemake results/miou.csv figures"
        )
    table = graph.table("miou")
    found = {f"{name}.png": graph.folder(each) / "figure.png" for name, each in figures.items()}
    found |= {path.name: path for path in (table, table.with_name("metrics.json"))}
    total = sum(path.stat().st_size for path in found.values())
    if total > BYTES:
        raise Refusal(
            f"figures and table have {total} bytes, more than {BYTES}; show fewer images."
        )
    out.mkdir(parents=True, exist_ok=True)
    return [shutil.copyfile(path, out / name) for name, path in found.items()]

"""What a visitor sees without running: table, metrics and figures of the miniature, for git."""

import shutil
from pathlib import Path

from madan.pipeline import artefacts
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness
from madan.schema import Refusal

BYTES = 3_000_000


def publish(graph: Graph, out: Path) -> list[Path]:
    """Copy results/miou.csv, results/metrics.json and every figure as out/<figure>.png.

    Of the other tables those that are finished go to out/tables, but for LaTeX. Refusal at another
    scale, where any of the rest is not what params.yaml and the package say now, or where it is too
    large for git.
    """
    if graph.params.scale != "miniature":
        raise Refusal(f"scale is {graph.params.scale}; what is published is of scale: miniature.")
    figures = {name: artefacts.Figure(name) for name in graph.params.figures}
    is_current = Staleness(graph).is_current
    wrong = [
        str(each) for each in (artefacts.Table("miou"), *figures.values()) if not is_current(each)
    ]
    if wrong:
        raise Refusal(
            f"these are missing or out of date: {', '.join(wrong)}; make them first: "
            "snakemake results/miou.csv figures"
        )
    table = artefacts.Table("miou").csv
    found = {f"{name}.png": graph.folder(each) / "figure.png" for name, each in figures.items()}
    found |= {path.name: path for path in (table, table.with_name("metrics.json"))}
    for name in graph.params.tables:
        made = artefacts.Table(name)
        if name != "miou" and is_current(made):
            pages = [page for page in made.pages.values() if page.suffix != ".tex"]
            found |= {str(page.relative_to(table.parent)): page for page in pages}
    total = sum(path.stat().st_size for path in found.values())
    if total > BYTES:
        raise Refusal(
            f"figures and tables have {total} bytes, more than {BYTES}; show fewer images."
        )
    for name in found:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, out / name)) for name, path in found.items()]

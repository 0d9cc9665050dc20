"""Copies of the miniature's tables and figures for git, so that a visitor sees them at once."""

from pathlib import Path

from madan import outputs
from madan.errors import Refusal
from madan.outputs import Outputs
from madan.pipeline import artefacts
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness

BYTES = 3_000_000


def publish(graph: Graph, out: Path) -> list[Path]:
    """Copy results/miou.csv, results/metrics.json and every figure, as out/<figure>.png.

    The files of other tables go to out/tables if the table is finished, without LaTeX. Returns the
    copies. Raises Refusal at another scale, if the first table or a figure is missing or out of
    date, if the files are too large for git, and if a file is in its place that madan did not
    write; then nothing is copied.
    """
    if graph.params.miniature is None:
        raise Refusal(
            f"params.yaml says scale: {graph.params.scale}, but only results of scale: miniature "
            "are copied for git; set scale: miniature."
        )
    figures = {name: artefacts.Figure(name) for name in graph.params.figures}
    is_current = Staleness(graph).is_current
    wrong = [
        str(each) for each in (artefacts.Table("miou"), *figures.values()) if not is_current(each)
    ]
    if wrong:
        raise Refusal(
            f"these results are missing or out of date: {', '.join(wrong)}; make them first: "
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
            f"figures and tables have {total} bytes, but git gets at most {BYTES}; set a smaller "
            "figures.<name>.images in params.yaml."
        )
    files = Outputs(out, "publish")
    files.require(found, {name: outputs.sha256(path) for name, path in found.items()})
    return [files.write(name, path.read_bytes()) for name, path in found.items()]

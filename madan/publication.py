"""What a visitor sees without running: table, metrics and figures of the miniature, for git."""

from pathlib import Path

from madan import guard, outputs
from madan.graph import Artefact, Graph
from madan.outputs import Outputs
from madan.schema import Refusal

BYTES = 3_000_000


def publish(graph: Graph, out: Path) -> list[Path]:
    """Copy results/miou.csv, results/metrics.json and every figure as out/<figure>.png.

    Of the other tables those that are finished go to out/tables, but for LaTeX. Refusal at another
    scale, where any of the rest is not what params.yaml and the package say now, where it is too
    large for git, or where a file lies in its place that madan did not write.
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
    for name in graph.params.tables:
        if name != "miou" and _finished(graph, name):
            pages = [page for page in graph.pages(name).values() if page.suffix != ".tex"]
            found |= {str(page.relative_to(table.parent)): page for page in pages}
    total = sum(path.stat().st_size for path in found.values())
    if total > BYTES:
        raise Refusal(
            f"figures and tables have {total} bytes, more than {BYTES}; show fewer images."
        )
    files = Outputs(out, "publish")
    files.require(found, {name: outputs.sha256(path) for name, path in found.items()})
    return [files.write(name, path.read_bytes()) for name, path in found.items()]


def _finished(graph: Graph, table: str) -> bool:
    behind = graph.ancestry([Artefact("tables", table)])
    return all(guard.sound(graph, each) for each in behind)

"""All benchmarks: results/benchmarks.csv, and the table in docs/performance.md.

python benchmarks/table.py [--rounds N] [--seconds S] [--only NAME ...]
"""

import argparse
import csv
import datetime
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import data
import images
import jobs
import scoring
import shares
import steps
import torch
from pairs import DOCUMENT, FULL, Pair, Row, Size, document, machine, measured

CSV = Path("results/benchmarks.csv")


def pairs(size: Size, scratch: Path) -> Iterator[Pair]:
    """Every pair, one at a time, so that what one holds is free when the next begins."""
    for number, made in enumerate((scoring.pairs, images.pairs, data.pairs)):
        (own := scratch / str(number)).mkdir()
        yield from made(size, own)
    yield from steps.pairs(size)


def rows(size: Size, rounds: int, seconds: float, only: Sequence[str]) -> Iterator[Row]:
    """Every row of the table, as it is measured."""
    with tempfile.TemporaryDirectory() as scratch:
        for pair in pairs(size, Path(scratch)):
            if not only or pair.name in only:
                yield (found := measured(pair, rounds, seconds))
                if pair.name == "multi-source-step":
                    yield steps.loader(size, found, rounds)
    for row in shares.rows(size, 3) if not only or "shares" in only else ():
        yield row
    for row in jobs.rows(3) if not only or "jobs" in only else ():
        yield row


def written(found: Sequence[Row], taken: float) -> None:
    """Write the CSV, and the table between its marks in the document."""
    about = {"date": datetime.date.today().isoformat(), **machine()}
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, *about])
        for row in found:
            numbers = [f"{value:.4g}" for value in row[1:6]]
            writer.writerow(
                [row.name, *numbers, row.rounds, f"{row.error:.3g}", row.what, *about.values()]
            )
    lines = [
        "; ".join(f"{key} {value}" for key, value in about.items()) + f"; {taken:.0f} s in all.",
        "",
        "| name | ratio | range | baseline, ms | ours, ms | rounds | error | what |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in found:
        numbers = f"{row.ratio:.2f} | {row.min:.2f}–{row.max:.2f} | {row.baseline_ms:.4g}"
        numbers += f" | {row.ours_ms:.4g} | {row.rounds} | {row.error:.2g}"
        lines.append(f"| {row.name} | {numbers} | {row.what} |")
    document("measured", lines, DOCUMENT)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of a pair, at most")
    parser.add_argument("--seconds", type=float, default=5, help="after two rounds, at most")
    parser.add_argument("--only", nargs="*", default=[], help="names; then nothing is written")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    begun, found = time.perf_counter(), []
    for row in rows(FULL, chosen.rounds, chosen.seconds, chosen.only):
        found.append(row)
        print(
            f"{row.name:18} x{row.ratio:.2f} ({row.min:.2f}-{row.max:.2f})  "
            f"{row.baseline_ms:.4g} ms  {row.ours_ms:.4g} ms  error {row.error:.2g}", flush=True,
        )  # fmt: skip
    if not chosen.only:
        written(found, time.perf_counter() - begun)


if __name__ == "__main__":
    main()

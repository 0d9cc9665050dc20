"""Verify: what can be wrong with a dataset and how to mend it, before anything learns from it.

Kinds of findings are in `inspection`. What training reads is decided here alone: pairs that are
kept, with the hashes of their files.
"""

import contextlib
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from filecmp import cmp
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

import numpy as np

from madan import labels
from madan.config.data_settings import Dataset
from madan.data import layouts, plausibility
from madan.data.datasets import Verified
from madan.data.inspection import EXCLUSIONS, FIT, KINDS, Finding, Inspection, inspect
from madan.data.inspection import UNUSABLE as UNUSABLE  # Commands end with it.
from madan.data.layouts import Item, Layout, Meaning
from madan.engine.progress import Meter
from madan.errors import Refusal
from madan.files import write_whole
from madan.folders import NotNow, Stray

SHOWN = 5  # examples of a kind in the table for people
VALUES = 20  # unknown ids or colours that a report names
STATUS = ("fit", "usable with exclusions", "unusable")
NOT_LOOKED_AT = (
    "--quick reads headers alone. Not looked at: pixels, checksums, ids and colours of labels, "
    "palettes, shares of classes, blank and damaged images. Nothing is certified."
)


class Report(NamedTuple):
    """What was found in a split: kept pairs, reasons of exclusions, findings, sizes and shares."""

    where: str
    layout: str
    status: int
    quick: bool
    pairs: dict[str, tuple[str, str]]
    excluded: dict[str, str]
    findings: list[Finding]
    sizes: dict[str, int]
    shares: dict[str, float]


def verify(
    where: str, dataset: Dataset, split: str, *, jobs: int = 1, quick: bool = False,
    journal: Path | None = None, key: str = "", images_alone: bool = False,
) -> Report:  # fmt: skip
    """Look at every pair of a split, called `where`; `quick` reads headers alone.

    With `images_alone`, a split without a single label is usable, as images of a target.
    What was seen is noted in `journal`, from which an interrupted run of the same `key` goes on;
    pairs whose files changed meanwhile are looked at again. The report does not depend on `jobs`.
    """
    layout = layouts.of(dataset)
    items, findings = _items(dataset, split, images_alone)
    known = {item.name: _known(dataset, layout, item.name) for item in items}
    findings += [finding for finding in known.values() if finding]
    how = layouts.meaning(dataset, split), quick
    new = [item for item in items if not known[item.name]]
    seen = _inspected(new, how, jobs, journal, key, f"verify {where}")
    findings += [finding for one in seen for finding in one.findings]
    findings += _of_split(dataset, split, layout, seen, set(known))
    if items and not items[0].labelled:
        findings.append(Finding("no labels", "", f"{len(items)} images, not one label"))
    if split != "train":
        blank = (f._replace(kind="unscored") if f.kind == "blank label" else f for f in findings)
        findings = list(blank)
    excluded = {
        f.name: f.detail if known[f.name] else f.kind
        for f in sorted(findings, reverse=True)
        if KINDS[f.kind].gravity == EXCLUSIONS
    }
    barred = {f.name for f in findings if KINDS[f.kind].gravity >= EXCLUSIONS}
    kept = [one for one in seen if one.name not in barred]
    lost = sum(not known[name] for name in excluded)
    if split != "train" and lost:
        findings.append(Finding("incomplete", "", f"{lost} of {len(items)} images"))
    if items and not kept:
        findings.append(Finding("nothing left", "", f"none of {len(items)} pairs"))
    return Report(
        where,
        dataset.layout,
        status=max((KINDS[finding.kind].gravity for finding in findings), default=FIT),
        quick=quick,
        pairs={one.name: one.digests for one in kept},
        excluded=dict(sorted(excluded.items())),
        findings=sorted(findings, key=lambda f: (-KINDS[f.kind].gravity, *f)),
        sizes=_sizes(kept),
        shares=_shares(kept),
    )


def _items(
    dataset: Dataset, split: str, images_alone: bool
) -> tuple[list[layouts.Item], list[Finding]]:
    """The pairs of a split, or the finding that says why there are none."""
    try:
        return layouts.items(dataset, split, images_alone), []
    except NotNow as refusal:
        return [], [Finding("not readable now", "", str(refusal))]
    except Refusal as refusal:
        return [], [Finding("not there", "", f"{refusal}{_archives(dataset.root)}")]


def _sizes(kept: list[Inspection]) -> dict[str, int]:
    """How many images there are of each size, width first as people say it."""
    return dict(sorted(Counter(f"{one.size[1]}x{one.size[0]}" for one in kept).items()))


def _shares(kept: list[Inspection]) -> dict[str, float]:
    """Share of all pixels that each class has, and those ignored."""
    pixels = np.sum([one.pixels for one in kept] or [Inspection("").pixels], axis=0)
    shares = (pixels / max(1, pixels.sum())).round(6).tolist()
    return dict(zip((*labels.CLASSES, "ignored"), shares, strict=True))


def _known(dataset: Dataset, layout: Layout, name: str) -> Finding | None:
    """What params.yaml or the release's known damage says of a pair before it is looked at."""
    if name in dataset.exclude:
        return Finding("excluded", name, dataset.exclude[name])
    if dataset.known_damage == "exclude" and name in layout.damaged:
        return Finding("known damage", name, layout.damaged[name])
    return None


def _of_split(
    dataset: Dataset, split: str, layout: Layout, seen: list[Inspection], names: set[str]
) -> list[Finding]:
    """What only shows when all pairs are looked at together."""
    findings = [*_beside(dataset, split), *_unknown(seen)]
    if names and layout.split_file and dataset.splits == "given":
        path = dataset.root / layout.split_file
        if not path.exists():
            findings.append(Finding("split list", "", f"{path} not found: split by number"))
    if layouts.by_folder(dataset) and split == "train":
        for other in set(layouts.splits(dataset)) - {"train"}:
            theirs = _images(dataset, other)
            findings += [
                Finding("also in val or test", one.name, f"also in {other}")
                for one in seen
                if one.name in theirs and one.size != (0, 0)
                and cmp(layouts.item(dataset, split, one.name).image, theirs[one.name], False)
            ]  # fmt: skip
    if unknown := set(dataset.exclude) - names:
        elsewhere = [_images(dataset, other) for other in layouts.SPLITS if other != split]
        unknown -= {name for found in elsewhere for name in found}
        findings += [Finding("excluded in vain", "", name) for name in sorted(unknown)]
    alone = {
        kind: {f.name.lower(): f.name for one in seen for f in one.findings if f.kind == kind}
        for kind in ("no image", "no label")
    }
    for lower in alone["no image"].keys() & alone["no label"].keys():
        pair = sorted(names[lower] for names in alone.values())
        findings += [Finding("names differ in case", name, " and ".join(pair)) for name in pair]
    sizes = Counter(one.size for one in seen if one.size != (0, 0))
    if not sizes:
        return findings
    usual = sizes.most_common(1)[0][0]
    findings += plausibility.check(layout, dataset.own is None, usual in layout.sizes, seen)
    if usual in layout.variants:
        findings.append(Finding("wrong variant", "", layout.variants[usual]))
    fine = {*layout.sizes} if usual in layout.sizes else {usual}
    findings += [
        Finding("odd size", one.name, f"{one.size[1]}x{one.size[0]}")
        for one in seen if one.size not in fine | {(0, 0)}
    ]  # fmt: skip
    released = {"all": "all", "given": split}.get(str(dataset.splits), "")
    published = layout.counts.get(released)
    if usual in layout.sizes and published and published != len(names):
        findings.append(Finding("count", "", f"{len(names)} pairs, the release has {published}"))
    return findings


def _beside(dataset: Dataset, split: str) -> list[Finding]:
    """Photos and odd files that are not read; of val and test, whole pairs of them."""
    strays = layouts.strays(dataset, split)
    findings = [
        Finding("odd file" if each.odd else "suffix", "", f"{each.path}: {each.why}")
        for each in strays
    ]
    if split != "train" and (pairs := _pairs(dataset, split, strays)):
        findings.append(Finding("not read", "", f"{len(pairs)} pairs, such as {pairs[0]}"))
    return findings


def _pairs(dataset: Dataset, split: str, strays: list[Stray]) -> list[str]:
    """Names that strays have on both sides, as if only their suffix were another."""
    sides = []
    for pattern in layouts.form(dataset, split).patterns:
        stems = Path(pattern).with_suffix("")
        found = (layouts.stem(dataset.root, str(stems), stray.path) for stray in strays)
        sides.append({name for name in found if name})
    return sorted(sides[0] & sides[-1])


def _unknown(seen: list[Inspection]) -> list[Finding]:
    """Values that the layout does not have, over the whole split: how many, where, for example."""
    pixels: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for one in seen:
        for value, count in one.unknown:
            pixels[value] += count
            where.setdefault(value, []).append(one.name)
    total = sum(one.size[0] * one.size[1] for one in seen)
    found = [
        Finding(
            "unknown values", "",
            f"{value}: {100 * count / max(1, total):.3g} % of all pixels, in {len(where[value])} "
            f"of {len(seen)} labels, such as {where[value][0]}",
        )
        for value, count in pixels.most_common(VALUES)
    ]  # fmt: skip
    if len(pixels) > VALUES:
        found.append(Finding("unknown values", "", f"and {len(pixels) - VALUES} more"))
    return found


def _images(dataset: Dataset, split: str) -> dict[str, Path]:
    """The images of a split that are there, by name; none where there is no such split."""
    try:
        items = layouts.items(dataset, split, images_alone=True)
        return {item.name: item.image for item in items if item.image.exists()}
    except Refusal:
        return {}


def _archives(root: Path) -> str:
    """A further sentence where downloads lie there that are not yet extracted."""
    packed = sorted(p for p in root.glob("*") if p.suffix in (".zip", ".rar", ".tar", ".gz", ".7z"))
    broken = [path.name for path in packed if path.suffix == ".zip" and not is_zipfile(path)]
    if not packed:
        return ""
    again = f"; download {', '.join(broken)} again, it is cut short" if broken else ""
    return f" {', '.join(path.name for path in packed)} lie there: extract them{again}."


def _inspected(
    items: list[Item], how: tuple[Meaning, bool], jobs: int,
    journal: Path | None, key: str, title: str,
) -> list[Inspection]:  # fmt: skip
    """Every pair inspected, in order, by so many threads, or as the journal says."""
    stamps = {item.name: _stamp(item) for item in items}
    noted = _noted(journal, key)
    found = {name: one for name, (stamp, one) in noted.items() if stamp == stamps.get(name)}
    waiting = [item for item in items if item.name not in found]
    meter = Meter(title, len(items), len(found))
    with contextlib.ExitStack() as stack:
        notes = None
        if journal:
            journal.parent.mkdir(parents=True, exist_ok=True)
            fresh = [json.dumps(key), *(json.dumps([stamps[n], one]) for n, one in found.items())]
            write_whole(journal, "\n".join([*fresh, ""]))
            notes = stack.enter_context(journal.open("a"))
        pool = ThreadPoolExecutor(jobs)
        stack.callback(pool.shutdown, cancel_futures=True)
        for one in pool.map(lambda item: inspect(item, *how), waiting):
            found[one.name] = one
            # What cannot be read for the moment is looked at again.
            if notes and all(f.kind != "not readable now" for f in one.findings):
                notes.write(json.dumps([stamps[one.name], one]) + "\n")
                notes.flush()
            meter.show(len(found), {})
    meter.close()
    return [found[item.name] for item in items]


def _stamp(item: Item) -> list[int]:
    """Bytes and time of change of both files, by which a journal knows them again."""
    stamp = []
    for path in item.files:
        with contextlib.suppress(OSError):
            said = path.stat()
            stamp += [said.st_size, said.st_mtime_ns]
    return stamp


def _noted(journal: Path | None, key: str) -> dict[str, tuple[list[int], Inspection]]:
    """What an interrupted run of the same key had seen; a line cut short is no line."""
    noted: dict[str, tuple[list[int], Inspection]] = {}
    with contextlib.suppress(ValueError, TypeError):
        lines = journal.read_text().splitlines() if journal and journal.exists() else []
        if lines and json.loads(lines[0]) != key:
            return {}
        for line in lines[1:]:
            stamp, (name, found, *more) = json.loads(line)
            digests, size, pixels, ids, palette, how, unknown = more
            noted[name] = (
                stamp,
                Inspection(
                    name,
                    tuple(Finding(*finding) for finding in found),
                    tuple(digests),
                    tuple(size),
                    tuple(pixels),
                    tuple((value, count) for value, count in ids),
                    tuple((index, colour) for index, colour in palette),
                    how,
                    tuple((value, count) for value, count in unknown),
                ),
            )
    return noted


# --- What is written and shown ----------------------------------------------------------------


def write(report: Report, path: Path) -> None:
    """Write what prepare reads: the kept pairs with their hashes, and why others are left out."""
    said = {"excluded": report.excluded, "pairs": report.pairs}
    path.write_text(json.dumps(said, indent=1) + "\n")


def read(path: Path) -> Verified:
    """What `write` wrote; Refusal when it is missing or damaged."""
    try:
        said = json.loads(path.read_text())
        pairs = {name: (image, label) for name, (image, label) in said["pairs"].items()}
        return Verified(pairs, dict(said["excluded"]))
    except FileNotFoundError:
        raise Refusal(
            f"{path} not found: make it with snakemake {path.parent}/certificate.json"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(
            f"{path} is damaged ({error}): run snakemake again, which makes it anew."
        ) from None


def as_json(report: Report) -> str:
    """The whole report, for programs: findings with their remedies, sizes and class shares."""
    findings = [
        {**finding._asdict(), "remedy": KINDS[finding.kind].remedy} for finding in report.findings
    ]
    said = {
        **report._asdict(),
        "status": STATUS[report.status],
        "pairs": len(report.pairs),
        "findings": findings,
    }
    return json.dumps(said, indent=1) + "\n"


def show(report: Report) -> None:
    """Print the report for a person: kinds of findings, how many, what to do."""
    from rich.console import Console
    from rich.table import Table

    kept, left_out = len(report.pairs), len(report.excluded)
    sizes = ", ".join(f"{count} of {size}" for size, count in report.sizes.items())
    lines = f"{report.where} ({report.layout}): {STATUS[report.status]}; "
    bare = any(finding.kind == "no labels" for finding in report.findings)
    lines += f"{kept} {'images' if bare else 'pairs'} kept, {left_out} left out"
    lines += f"; {sizes}" if sizes else ""
    # Names are shown as they are: brackets are no markup, what is no text is escaped.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(lines, highlight=False)
    if report.quick:
        console.print(NOT_LOOKED_AT, highlight=False)
    if any(report.shares.values()):
        shares = sorted(report.shares.items(), key=lambda share: -share[1])
        there = ", ".join(f"{name} {100 * share:.2g} %" for name, share in shares if share)
        absent = ", ".join(name for name in labels.CLASSES if not report.shares[name])
        console.print(
            f"pixels: {there}" + (f"; none of {absent}" if absent else ""), highlight=False
        )
    if report.findings:
        table = Table("finding", "pairs", "which", "what to do")
        for kind in dict.fromkeys(finding.kind for finding in report.findings):
            found = [f for f in report.findings if f.kind == kind]
            shown = VALUES + 1 if kind == "unknown values" else SHOWN
            which = "\n".join(" ".join(f[1:]).strip() for f in found[:shown])
            which = which.encode(errors="backslashreplace").decode()
            more = f"\n… and {len(found) - shown} more" if len(found) > shown else ""
            fate = ("kept", "left out", "")[KINDS[kind].gravity] if found[0].name else ""
            table.add_row(
                f"{kind}\n{fate}".strip(), str(len(found)), which + more, KINDS[kind].remedy
            )
        console.print(table, highlight=False)

"""Verify: what can be wrong with a dataset and how to mend it, before anything learns from it.

A finding is of a kind; a kind says whether the pair is kept, left out, or the dataset unusable.
What training reads is decided here alone: pairs that are kept, with the hashes of their files.
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
from PIL import Image

from madan import datasets, labels, layouts
from madan.datasets import NotIds, Verified
from madan.files import write_whole
from madan.layouts import UNKNOWN, Item, Layout, Values
from madan.progress import Meter
from madan.schema import Dataset, Refusal

FIT, EXCLUSIONS, UNUSABLE = 0, 1, 2  # the status of a split, and the exit code
SHOWN = 5  # examples of a kind in the table for people
STATUS = ("fit", "usable with exclusions", "unusable")


class Kind(NamedTuple):
    """A kind of finding: how grave (FIT: the pair is kept), and what to do about it."""

    gravity: int
    remedy: str


KINDS = {
    "no image": Kind(EXCLUSIONS, "Extract the images again, or delete the label."),
    "no label": Kind(EXCLUSIONS, "Extract the labels again, or delete the image."),
    "missing": Kind(
        EXCLUSIONS, "The list of the split names it, the folders lack it: download its part again."
    ),
    "names differ in case": Kind(EXCLUSIONS, "Rename one of the two like the other."),
    "dead link": Kind(EXCLUSIONS, "The file it points to is gone: link it again or copy the file."),
    "unreadable": Kind(
        EXCLUSIONS, "The file is damaged or cut short: download or extract it again."
    ),
    "two sizes": Kind(EXCLUSIONS, "Image and label must have one size: replace both."),
    "unknown ids": Kind(
        EXCLUSIONS,
        "The label holds ids that this layout does not have: take the release's label images, or "
        "name the ids in `layouts` of params.yaml.",
    ),
    "not ids": Kind(
        EXCLUSIONS, "The label is no image of class ids (colours, or bits lost): take the others."
    ),
    "blank label": Kind(EXCLUSIONS, "Nothing is labelled, so nothing can be learnt from it."),
    "one colour": Kind(EXCLUSIONS, "The image shows nothing: download it again."),
    "known damage": Kind(EXCLUSIONS, "Damaged in the release; known_damage: keep would keep it."),
    "excluded": Kind(EXCLUSIONS, "Left out by domains.<name>.exclude in params.yaml."),
    "also in val or test": Kind(
        EXCLUSIONS, "What is evaluated on must not be trained on: delete it from train."
    ),
    "excluded in vain": Kind(
        FIT, "domains.<name>.exclude names it, no split has it: is it misspelt?"
    ),
    "unscored": Kind(FIT, "The label is blank: the image can be predicted, not scored."),
    "one class": Kind(FIT, "Look at it; if it is damaged, add it to domains.<name>.exclude."),
    "rotated": Kind(FIT, "Its EXIF entry says so; it is read upright, nothing to do."),
    "odd size": Kind(FIT, "Others are of another size; it is resized like them."),
    "suffix": Kind(FIT, "Not seen, since its suffix is not the layout's: rename it."),
    "count": Kind(FIT, "Parts may be missing: compare with the archives of the release."),
    "split list": Kind(FIT, "Put split.mat of the release there for its own split."),
    "wrong variant": Kind(UNUSABLE, "Download the variant that docs/data.md names."),
    "not there": Kind(UNUSABLE, "Put it there, or a link, as docs/data.md shows."),
    "nothing left": Kind(UNUSABLE, "Not one pair can be used: mend what is listed above."),
    "incomplete": Kind(
        UNUSABLE,
        "A score must count every image of its split: replace those listed above, or name them in "
        "domains.<name>.exclude.",
    ),
}


class Finding(NamedTuple):
    """Something noteworthy: its kind, the pair's name (none: the whole split), what was seen."""

    kind: str
    name: str
    detail: str


class Inspection(NamedTuple):
    """One pair, looked at: hashes of its files, size [h, w], pixels of 19 classes and ignored."""

    name: str
    findings: tuple[Finding, ...] = ()
    digests: tuple[str, str] = ("", "")
    size: tuple[int, int] = (0, 0)
    pixels: tuple[int, ...] = (0,) * (len(labels.CLASSES) + 1)


class Report(NamedTuple):
    """What was found in a split: kept pairs, reasons of exclusions, findings, sizes and shares."""

    where: str
    layout: str
    status: int
    quick: bool
    listing: tuple[int, int]
    pairs: dict[str, tuple[str, str]]
    excluded: dict[str, str]
    findings: list[Finding]
    sizes: dict[str, int]
    shares: dict[str, float]


def verify(
    where: str, dataset: Dataset, split: str, *, jobs: int = 1, quick: bool = False,
    journal: Path | None = None, key: str = "",
) -> Report:  # fmt: skip
    """Look at every pair of a split, called `where`; `quick` reads headers alone.

    What was seen is noted in `journal`, from which an interrupted run of the same `key` goes on;
    pairs whose files changed meanwhile are looked at again. The report does not depend on `jobs`.
    """
    layout, findings = layouts.of(dataset), []
    try:
        items = layouts.items(dataset, split)
    except Refusal as refusal:
        findings, items = [Finding("not there", "", f"{refusal}{_archives(dataset.root)}")], []
    known = {item.name: _known(dataset, layout, item.name) for item in items}
    findings += [finding for finding in known.values() if finding]
    how = layouts.form(dataset, split).values, layout.table, quick
    new = [item for item in items if not known[item.name]]
    seen = _inspected(new, how, jobs, journal, key, f"verify {where}")
    findings += [finding for one in seen for finding in one.findings]
    findings += _of_split(dataset, split, layout, seen, set(known))
    if split != "train":
        blank = (f._replace(kind="unscored") if f.kind == "blank label" else f for f in findings)
        findings = list(blank)
    excluded = {
        f.name: f.detail if known[f.name] else f.kind
        for f in sorted(findings, reverse=True)
        if KINDS[f.kind].gravity == EXCLUSIONS
    }
    kept = [one for one in seen if one.name not in excluded]
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
        listing=layouts.listing(dataset, split),
        pairs={one.name: one.digests for one in kept},
        excluded=dict(sorted(excluded.items())),
        findings=sorted(findings, key=lambda f: (-KINDS[f.kind].gravity, *f)),
        sizes=_sizes(kept),
        shares=_shares(kept),
    )


def _sizes(kept: list[Inspection]) -> dict[str, int]:
    """How many images there are of each size, width first as people say it."""
    return dict(sorted(Counter(f"{one.size[1]}x{one.size[0]}" for one in kept).items()))


def _shares(kept: list[Inspection]) -> dict[str, float]:
    """Share of all pixels that each class has, and those ignored."""
    pixels = np.sum([one.pixels for one in kept] or [Inspection("").pixels], axis=0)
    shares = (pixels / max(1, pixels.sum())).round(6).tolist()
    return dict(zip((*labels.CLASSES, "ignored"), shares, strict=True))


def inspect(item: Item, values: Values, table: labels.Labels, quick: bool) -> Inspection:
    """Look at one pair: is it there, readable, of one size, and does its label hold classes?"""
    missing = [path for path in (item.image, item.label) if not path.exists()]
    if missing:
        link = [path for path in missing if path.is_symlink()]
        kind = (
            "missing" if len(missing) == 2 else "no image" if item.image in missing else "no label"
        )
        return _found(item, "dead link" if link else kind, str((link or missing)[0]))
    return _headers(item, values) if quick else _contents(item, values, table)


def _contents(item: Item, values: Values, table: labels.Labels) -> Inspection:
    try:
        image, of_image = datasets.read_image(item.image)
        truth, of_label = datasets.read_label(item.label, values, table)
    except NotIds as refusal:
        return _found(item, "not ids", str(refusal))
    except Refusal as refusal:
        return _found(item, "unreadable", str(refusal))
    if image.shape[:2] != truth.shape:
        return _found(item, "two sizes", _two(image.shape, truth.shape))
    counts = np.array(Image.fromarray(truth).histogram())
    classes = counts[: len(labels.CLASSES)]
    findings = []
    if counts[UNKNOWN]:
        findings.append(("unknown ids", f"{counts[UNKNOWN]} pixels of {truth.size}"))
    elif not classes.any():
        findings.append(("blank label", "nothing is labelled"))
    elif np.count_nonzero(classes) == 1:
        findings.append(("one class", labels.CLASSES[int(classes.argmax())]))
    if (image[::16, ::16] == image[0, 0]).all() and (image == image[0, 0]).all():
        findings.append(("one colour", f"all pixels are {tuple(image[0, 0].tolist())}"))
    with Image.open(item.image) as header:
        if _orientation(header) != 1:
            findings.append(("rotated", "turned upright"))
    return Inspection(
        item.name,
        tuple(Finding(kind, item.name, detail) for kind, detail in findings),
        (of_image, of_label),
        (image.shape[0], image.shape[1]),
        (*classes.tolist(), int(counts[labels.IGNORE])),
    )


def _headers(item: Item, values: Values) -> Inspection:
    """What the first bytes of both files tell."""
    try:
        with Image.open(item.image) as image, Image.open(item.label) as label:
            upright = image.size[::-1] if _orientation(image) > 4 else image.size
            mode, size = label.mode, label.size
    except Exception as error:  # Of a damaged file Pillow raises whatever the bytes lead to.
        return _found(item, "unreadable", str(error))
    if upright != size:
        return _found(item, "two sizes", _two(upright[::-1], size[::-1]))
    with item.label.open("rb") as file:
        deep = file.read(25)[24:] == b"\x10"  # the bit depth in a PNG's header
    right = deep if values == "sixteen bits" else mode in ("P", "L") or values == "colours"
    if not right:
        return _found(item, "not ids", f"{item.label} is a {mode} image")
    return Inspection(item.name, size=(size[1], size[0]))


def _found(item: Item, kind: str, detail: str) -> Inspection:
    return Inspection(item.name, (Finding(kind, item.name, detail),))


def _two(image: tuple[int, ...], label: tuple[int, ...]) -> str:
    return f"image {image[1]}x{image[0]}, label {label[1]}x{label[0]}"


def _orientation(image: Image.Image) -> int:
    """Which way is up, 1 to 8, as the header says: 1 upright, from 5 on lying on its side."""
    # Asked for more than that, Pillow would decode a whole PNG.
    return image.getexif().get(datasets.ORIENTATION, 1) if "exif" in image.info else 1


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
    findings = [Finding("suffix", "", str(path)) for path in layouts.strays(dataset, split)]
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


def _images(dataset: Dataset, split: str) -> dict[str, Path]:
    """The images of a split that are there, by name; none where there is no such split."""
    try:
        return {i.name: i.image for i in layouts.items(dataset, split) if i.image.exists()}
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
    items: list[Item], how: tuple[Values, labels.Labels, bool], jobs: int,
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
            if notes:
                notes.write(json.dumps([stamps[one.name], one]) + "\n")
                notes.flush()
            meter.show(len(found), {})
    meter.close()
    return [found[item.name] for item in items]


def _stamp(item: Item) -> list[int]:
    """Bytes and time of change of both files, by which a journal knows them again."""
    stamp = []
    for path in (item.image, item.label):
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
            stamp, (name, findings, digests, size, pixels) = json.loads(line)
            found = tuple(Finding(*finding) for finding in findings)
            one = Inspection(name, found, tuple(digests), tuple(size), tuple(pixels))
            noted[name] = stamp, one
    return noted


# --- What is written and shown ----------------------------------------------------------------


def write(report: Report, path: Path) -> None:
    """Write what prepare reads: the kept pairs with their hashes, and why others are left out."""
    said = {"listing": report.listing, "excluded": report.excluded, "pairs": report.pairs}
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
    lines += f"{kept} pairs kept, {left_out} left out" + (f"; {sizes}" if sizes else "")
    # Names are shown as they are: brackets are no markup, what is no text is escaped.
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(lines, highlight=False)
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
            which = "\n".join(" ".join(f[1:]).strip() for f in found[:SHOWN])
            which = which.encode(errors="backslashreplace").decode()
            more = f"\n… and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            fate = ("kept", "left out", "")[KINDS[kind].gravity] if found[0].name else ""
            table.add_row(
                f"{kind}\n{fate}".strip(), str(len(found)), which + more, KINDS[kind].remedy
            )
        console.print(table, highlight=False)

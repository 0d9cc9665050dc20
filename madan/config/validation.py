"""What no single key of params.yaml says: names that exist, runs that can be, sizes that fit."""

import re
from pathlib import Path

from madan import folders, labels, published
from madan.config.data_settings import Domain, Layout
from madan.config.method_validation import check_methods, check_parts
from madan.config.network_settings import BACKBONES
from madan.config.override_validation import check_overrides, check_starts
from madan.config.runs import check_kind, needs, own_key, stylable
from madan.config.schema import Adaptation, Params, Row, Segmenter, Table, Translator, started
from madan.config.size_validation import check_pretrained, check_sizes
from madan.config.target_validation import check_labelled, check_no_meaning, check_target
from madan.errors import Refusal, known


def _check_layouts(params: Params) -> None:
    for name, layout in params.layouts.items():
        key = f"layouts.{name}"
        if name in labels.TABLES:
            raise Refusal(f"{key} has the name of a release's layout; choose another.")
        sides = {"images": layout.images, "labels": layout.labels}
        for side, pattern in ((side, each) for side, each in sides.items() if each is not None):
            if not re.fullmatch(r"([^{}]*({split}[^{}]*)?/)?[^{}/]*{name}[^{}/]*", pattern):
                raise Refusal(
                    f"{key}.{side} is {pattern}; write a path such as {side}/{{split}}/{{name}}.png"
                    ", where {split} may be left out."
                )
            if pattern.startswith("/") or ".." in Path(pattern).parts:
                raise Refusal(f"{key}.{side} is {pattern}; it must stay below the domain's root.")
        if layout.labels and ("{split}" in layout.images) != ("{split}" in layout.labels):
            raise Refusal(f"{key} has {{split}} in only one of images and labels; use it in both.")
        if layout.labels and folders.alike(layout.images, layout.labels):
            raise Refusal(
                f"{key} cannot tell images from labels; keep them in folders of their own."
            )
        for split, folder in layout.folders.items():
            known(f"{key}.folders", split, ("train", "val", "test"))
            if folder.startswith("/") or ".." in Path(folder).parts:
                raise Refusal(f"{key}.folders has {folder}; it must stay below the domain's root.")
        for top, left, bottom, right in layout.regions:
            if top >= bottom or left >= right:
                raise Refusal(
                    f"{key}.regions has {[top, left, bottom, right]}; write top, left, bottom, "
                    "right, where top is less than bottom and left is less than right."
                )
        if layout.labels is None:
            check_no_meaning(key, layout)
            continue
        if bool(layout.ids) == bool(layout.colours):
            raise Refusal(f"{key} needs ids, or colours where labels are colour images.")
        if isinstance(layout.ids, str):
            known(f"{key}.ids", layout.ids, labels.TABLES)
        values = layout.ids if isinstance(layout.ids, dict) else layout.colours or {}
        for word in values:
            known(key, word, labels.CLASSES)
        all_values = [value for each in values.values() for value in each] + layout.ignore
        for value in all_values:
            if isinstance(value, int) != bool(layout.ids):
                raise Refusal(f"{key}.ignore has {value}; it must be of the kind of the classes'.")
            if all_values.count(value) > 1:
                raise Refusal(f"{key} gives {value} to two classes; a value has one meaning.")


def _check_domains(params: Params) -> None:
    layouts = [*labels.TABLES, *params.layouts]
    for name, domain in params.domains.items():
        key = f"domains.{name}"
        if domain.layout:
            known(f"{key}.layout", domain.layout, layouts)
            _check_splits(key, domain, params.layouts.get(domain.layout))
        if domain.union is not None:
            if domain.layout or domain.root or domain.size:
                raise Refusal(
                    f"{key} has both union and layout, root or size; keep one of the two."
                )
            for member in domain.union:
                known(f"{key}.union", member, params.domains)
                if params.domains[member].union:
                    raise Refusal(f"{key}.union names {member}, itself a union; name its parts.")
        elif not (domain.layout and domain.root and domain.size):
            raise Refusal(f"{key} needs layout, root and size (or union alone).")
        elif params.drawn(name) or domain.root == f"data/miniature/{name}":
            if domain.layout in params.layouts:
                raise Refusal(
                    f"{key}.layout is {domain.layout}, which the miniature does not draw; put the "
                    "domain under scales.paper.domains and set scale: paper, or give it another "
                    "root and take it out of miniature.images."
                )
            if not params.drawn(name):
                raise Refusal(f"miniature.images lacks {name}: say how many images of it to draw.")
            if domain.root != f"data/miniature/{name}":
                raise Refusal(
                    f"{key}.root is {domain.root}, but {name} is drawn at data/miniature/{name}."
                )
            if domain.layout == "synthia" and set(params.drawn(name)) != {"train"}:
                raise Refusal(
                    f"miniature.images.{name} must be train alone: SYNTHIA has no splits."
                )


def _check_looks(params: Params) -> None:
    for name in params.miniature.looks if params.miniature else ():
        known("miniature.looks", name, [d for d, entry in params.domains.items() if entry.layout])


def _check_splits(key: str, domain: Domain, own: Layout | None) -> None:
    by_folder = "{split}" in own.images if own else domain.layout not in ("gta5", "synthia")
    if domain.splits != "given" and by_folder:
        raise Refusal(f"{key}.splits: the folders of {domain.layout} are its splits; drop the key.")
    if isinstance(domain.splits, dict) and abs(sum(domain.splits.values()) - 1) > 1e-6:
        raise Refusal(f"{key}.splits add up to {sum(domain.splits.values()):g}; they must to 1.")


def _check_export(params: Params) -> None:
    tile, overlap = params.export.tile, params.export.overlap
    if 2 * overlap > min(tile):
        raise Refusal(
            f"export.overlap is {overlap}; it must be at most half of both sides of export.tile, "
            f"{tile[0]}x{tile[1]}."
        )


def _check_runs(params: Params) -> None:
    named = {run.target for run in params.translators.values()}
    named |= {adaptation.target for adaptation in params.adaptations.values()}
    targets = {m for name in named & params.domains.keys() for m in params.members(name)}
    for name, run in params.translators.items():
        _check_translator(params, f"translators.{name}", run)
    for name, segmenter in params.segmenters.items():
        _check_sets(params, f"segmenters.{name}", segmenter, targets)
    for name, adaptation in params.adaptations.items():
        _check_adaptation(params, f"adaptations.{name}", adaptation, targets)


def _check_adaptation(params: Params, key: str, run: Adaptation, targets: set[str]) -> None:
    check_target(params, f"{key}.target", run.target)
    if run.method == "mdan" and (run.on or run.classwise is not None):
        raise Refusal(
            f"{key}: on and classwise are of adda and feat; mdan sees features as a whole."
        )
    if run.method != "adda":
        if not run.train_on:
            raise Refusal(f"{key}.train_on is missing: {run.method} learns from labelled sets.")
        _check_sets(params, key, run, targets)
        return
    if run.train_on:
        raise Refusal(f"{key}.train_on: adda has the sets of its start; drop the key.")
    check_parts(params, key, run)
    known(f"{key}.start", str(run.start), params.segmenters)
    if len(params.sets(run)) > params.alignment(run).batch:
        batch = own_key(key, run, "adaptation", "batch")
        raise Refusal(f"{key} has more sets than {batch} has images.")


def _check_sets(params: Params, key: str, run: Segmenter | Adaptation, targets: set[str]) -> None:
    """What a run learns from and starts from, where it minimises L_task."""
    oracle = isinstance(run, Segmenter) and run.oracle
    for item in run.train_on:
        run_name, _, domain = item.rpartition("/")
        if run_name:
            known(f"{key}.train_on {item}", domain, stylable(params, f"{key}.train_on", run_name))
            check_labelled(params, f"{key}.train_on", domain)
            continue
        known(f"{key}.train_on", item, params.domains)
        check_labelled(params, f"{key}.train_on", item)
        if not oracle and targets & set(params.members(item)):
            raise Refusal(
                f"{key}.train_on names {item}, a target, whose labels only evaluation and the "
                "oracle may read; say oracle: true if that is what this run is."
            )
    if len(run.train_on) > params.learning("", run).batch:
        batch = own_key(key, run, "segmenter", "batch")
        raise Refusal(f"{key}.train_on has more sets than {batch} has images.")
    for address in started(run):
        kind, name = address.split("/")
        known(f"{key}.start", name, getattr(params, kind))
        if kind == "translators" and not params.translators[name].task:
            raise Refusal(f"{key}.start is {run.start}, which has no task segmenter to start from.")
        if kind == "released":
            check_kind(params, f"{key}.start", name)
        other = params.architecture(address)
        if isinstance(run, Segmenter) and other != run.network:
            raise Refusal(
                f"{key}.start is {run.start}, whose network is {other}, but {key} is to be "
                f"{run.network}: say network: {other} there, or start from another run."
            )
    check_parts(params, key, run)


def _check_translator(params: Params, key: str, run: Translator) -> None:
    for source in run.sources:
        known(f"{key}.sources", source, params.domains)
        check_labelled(params, f"{key}.sources", source)
        for member in set(params.members(run.target)) & set(params.members(source)):
            raise Refusal(f"{key}: {member} is both source and target; name two domains.")
    if len(set(run.sources)) < len(run.sources):
        raise Refusal(f"{key}.sources names a domain twice; name each once.")
    check_target(params, f"{key}.target", run.target)
    if len(run.sources) < 2 and (run.sad or run.ccd):
        raise Refusal(f"{key}: sad and ccd compare sources, and there is one; switch them off.")
    covered = [s for name in run.start if name in params.translators
               for s in params.translators[name].sources]  # fmt: skip
    for name in run.start:
        known(f"{key}.start", name, params.translators)
        if params.translators[name].target != run.target:
            raise Refusal(f"{key}.start: {name} has another target than {run.target}.")
    if run.start and sorted(covered) != sorted(run.sources):
        raise Refusal(f"{key}.start covers {', '.join(covered)}; sources are {run.sources}.")
    if run.judges and run.semantic == "none":
        raise Refusal(f"{key} has judges but semantic: none; drop them or say sc or dsc.")
    if run.semantic != "none" and set(run.judges) != set(run.sources):
        raise Refusal(f"{key}.judges must name one segmenter for each of {run.sources}.")
    if run.semantic == "dsc" and not run.task:
        raise Refusal(f"{key}: semantic dsc needs task: {{start: RUN, update_every: N}}.")
    for source, judge in run.judges.items():
        known(f"{key}.judges", source, run.sources)
        _check_judge(params, f"{key}.judges.{source}", judge)
    if run.task and run.task.start:
        known(f"{key}.task.start", run.task.start, params.segmenters)
    elif run.task and not run.task.update_every:
        raise Refusal(f"{key}.task has no start and never learns; give it one of the two.")
    check_parts(params, key, run)
    _check_kept(key, run, run.steps or params.translating(run).steps)


def _check_kept(key: str, run: Translator, steps: int) -> None:
    for step in run.keep:
        if step >= steps:
            raise Refusal(
                f"{key}.keep names step {step} of {steps}; the last is given out as the run "
                "itself, so name earlier ones."
            )
        if run.keep.count(step) > 1:
            raise Refusal(f"{key}.keep names step {step} twice; name each once.")


def _check_judge(params: Params, key: str, judge: str) -> None:
    kind, name = params.judge(judge).split("/")
    known(key, name, getattr(params, kind))
    if kind == "released":
        check_kind(params, key, name)


def _check_released(params: Params) -> None:
    for name, entry in params.released.items():
        key = f"released.{name}"
        if entry.as_released and entry.network != "fcn8s":
            raise Refusal(f"{key}.as_released is about skip heads, which only fcn8s has; drop it.")
        if name in params.translators:
            raise Refusal(f"{key} has the name of a translator; choose another.")
        if entry.file == "torchvision" and entry.network not in ("vgg16", *BACKBONES):
            raise Refusal(f"{key}.file is torchvision, which has no {entry.network} of 19 classes.")


def _check_tables(params: Params) -> None:
    if "miou" not in params.tables:
        raise Refusal("tables.miou is missing: it is what results/miou.csv holds.")
    own = {f"tables.{name}.seeds": table.seeds or [] for name, table in params.tables.items()}
    for key, seeds in {"seeds": params.seeds, **own}.items():
        if len(set(seeds)) < len(seeds):
            raise Refusal(f"{key} names a seed twice; name each once.")
    for name, table in params.tables.items():
        check_target(params, f"tables.{name}.target", table.target)
        for member in params.members(table.target):
            split, drawn = params.evaluation.split, params.drawn(member)
            if drawn and split not in drawn:
                raise Refusal(f"evaluation.split is {split}; miniature.images.{member} has none.")
        rows = [row.row for row in table.rows]
        if table.against:
            known(f"tables.{name}.against", table.against, rows)
        for row in table.rows:
            _check_row(params, f"tables.{name} row {row.row}", row, table)
            if rows.count(row.row) > 1:
                raise Refusal(f"tables.{name} has two rows called {row.row}; rename one.")


def _check_figures(params: Params) -> None:
    for name, figure in params.figures.items():
        known(f"figures.{name}.table", figure.table, params.tables)
        wanted = ["segmenters", "adaptations"]
        trains = figure.shows in ("training", "discriminators")
        wanted.append("translators" if trains else "released")
        if figure.shows == "translation":
            wanted = ["translators"]
        if figure.shows == "translation" and not figure.runs:
            raise Refusal(f"figures.{name} needs runs: name the translators that it shows.")
        for address in figure.runs:
            kind, run = address.split("/")
            known(f"figures.{name}.runs", run, getattr(params, kind))
            if kind not in wanted:
                raise Refusal(
                    f"figures.{name} shows {figure.shows}, which {address} does not have; name "
                    f"runs of {' or '.join(wanted)}."
                )


def _check_row(params: Params, key: str, row: Row, table: Table) -> None:
    kind, run = row.run.split("/")
    known(key, run, getattr(params, kind))
    if kind == "released":
        check_kind(params, key, run)
    if kind == "translators":
        task = params.translators[run].task
        if task is None or not task.update_every:
            raise Refusal(
                f"{key} names a translator without a segmenter F_A that learns; give it "
                "task: {update_every: 1}, or name a segmenter."
            )
    if row.against:
        known(f"{key}: against", row.against, [other.row for other in table.rows])
    if row.published:
        known(f"{key}: published", row.published, published.figures(table.target))


def _check_cycles(params: Params) -> None:
    done: set[str] = set()

    def visit(address: str, path: list[str]) -> None:
        if address in path:
            circle = " -> ".join([*path[path.index(address) :], address])
            raise Refusal(f"these runs wait for each other: {circle}; break the circle.")
        if address not in done:
            for other in needs(params, address):
                visit(other, [*path, address])
            done.add(address)

    for kind in ("segmenters", "translators", "adaptations"):
        for name in getattr(params, kind):
            visit(f"{kind}/{name}", [])


CHECKS = (
    check_overrides,
    _check_layouts,
    _check_domains,
    _check_looks,
    check_sizes,
    _check_export,
    _check_released,
    check_pretrained,
    _check_runs,
    _check_cycles,
    check_methods,
    check_starts,
    _check_tables,
    _check_figures,
)

"""Pages: a table as people read it, in Markdown and in LaTeX; rows and columns as in the paper."""

from collections.abc import Sequence

import pandas as pd

from madan import tables
from madan.schema import Params

ABSENT = "–"
MEANS = {"miou16": "mIoU16", "miou19": "mIoU19", "miou13": "mIoU13"}
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def files(made: pd.DataFrame, name: str, params: Params) -> dict[str, str]:
    """The text of each file of a table, by the names that `Graph.pages` gives them."""
    table = params.tables[name]
    shown = _shown(tables.summary(made, table, params))
    apart = tables.differences(made, table)
    caption = _caption(made, name, params)
    return {
        "csv": made.to_csv(index=False),
        "differences": apart.to_csv(index=False),
        "md": markdown(shown, apart, caption),
        "tex": latex(shown, apart, caption),
    }


def markdown(shown: pd.DataFrame, apart: pd.DataFrame, caption: str) -> str:
    """Caption, table and differences."""
    text = f"{caption}\n\n{_markdown(shown)}"
    return text + (f"\n{_about(apart)}\n\n{_markdown(_intervals(apart))}" if len(apart) else "")


def latex(shown: pd.DataFrame, apart: pd.DataFrame, caption: str) -> str:
    """The same for LaTeX, to be read in by a document that uses the package graphicx."""
    text = f"% {caption}\n{_latex(shown)}"
    return text + (f"\n% {_about(apart)}\n{_latex(_intervals(apart))}" if len(apart) else "")


def _caption(made: pd.DataFrame, name: str, params: Params) -> str:
    split, target = params.evaluation.split, params.tables[name].target
    images = " ".join(str(count) for count in made["images"].unique())
    seeds = ", ".join(str(seed) for seed in params.seeds_of(name))
    data = ", ".join(sorted(made["data"].unique()))
    return (
        f"Table {name}: scale {params.scale}, {target} {split}, {images or 'no'} images, last "
        "step; IoU in percent, means over the 16 classes of the paper, 19 and 13, mean ± standard "
        f"deviation over n of the seeds {seeds}; data {data or ABSENT}."
    )


def _about(apart: pd.DataFrame) -> str:
    return (
        "Differences in mIoU16, seed by seed, with 95 % confidence intervals over seeds (Student's "
        f"t; one seed has none), scale {' '.join(apart['scale'].unique()).strip() or ABSENT}."
    )


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """A summary as cells of text."""
    cells = pd.DataFrame({"row": found["row"], "setting": found["setting"]})
    for name in tables.SHOWN:
        cells[name] = [_number(value) for value in found[name]]
    for name, title in MEANS.items():
        means, deviations = found[name], found[f"{name}_sd"]
        cells[title] = [_mean(*each) for each in zip(means, deviations, found["n"], strict=True)]
    cells["n"] = [str(n) for n in found["n"]]
    if "verdict" in found:
        cells["published"] = [_number(value) for value in found["published"]]
        cells["difference"] = [_number(value, "+.1f") for value in found["difference"]]
        cells["verdict"] = found["verdict"]
    return cells


def _intervals(apart: pd.DataFrame) -> pd.DataFrame:
    mine = apart[apart["mean"] == "miou16"]
    ends = [[_number(value, "+.2f") for value in mine[end]] for end in ("low", "high")]
    return pd.DataFrame(
        {
            "row": mine["row"],
            "against": mine["against"],
            "difference": [_number(value, "+.2f") for value in mine["difference"]],
            "95 % interval": [
                ABSENT if low == ABSENT else f"{low} to {high}"
                for low, high in zip(*ends, strict=True)
            ],
            "n": [str(n) for n in mine["n"]],
        }
    )


def _number(value: float, form: str = ".1f") -> str:
    return ABSENT if pd.isna(value) else format(value, form)


def _mean(mean: float, deviation: float, n: int) -> str:
    if n == 0:
        return "not run"
    return _number(mean) + ("" if pd.isna(deviation) else f" ± {deviation:.1f}")


def _markdown(cells: pd.DataFrame) -> str:
    def line(words: Sequence[str]) -> str:
        return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |\n"

    rule = ["---"] * 2 + ["--:"] * (len(cells.columns) - 2)
    return line(list(cells.columns)) + line(rule) + "".join(map(line, cells.values.tolist()))


def _latex(cells: pd.DataFrame) -> str:
    def line(words: Sequence[str]) -> str:
        return " & ".join(words) + " \\\\\n"

    titles = [rf"\rotatebox{{90}}{{{_escaped(title)}}}" for title in cells.columns[2:]]
    head = line([*cells.columns[:2], *titles])
    body = [line([_escaped(word) for word in row]) for row in cells.values.tolist()]
    form = "ll" + "r" * len(titles)
    return (
        f"\\begin{{tabular}}{{{form}}}\n\\hline\n{head}\\hline\n{''.join(body)}\\hline\n"
        "\\end{tabular}\n"
    )


def _escaped(word: str) -> str:
    text = "".join(SPECIAL.get(sign, sign) for sign in word)
    return text.replace("±", r"$\pm$").replace(ABSENT, "--")

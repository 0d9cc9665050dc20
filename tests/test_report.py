"""The report that `make report` writes, opened in a browser: whole, without a network."""

import asyncio
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, visit
from conftest import World, params_yaml, tiny

pytestmark = [pytest.mark.slow, pytest.mark.browser]
FIGURES = {
    "scores": ("heatmap", "segmenters/source-gta5"),
    "styles": ("translation", "translators/cyclegan-gta5"),
    "scenes": ("qualitative", "segmenters/source-gta5"),
    "losses": ("training", "translators/cyclegan-gta5"),
    "domains": ("shares", "segmenters/source-gta5"),
}
SHOWN = {
    "Tables": ("miou", "scores"),
    "Translation": ("styles",),
    "Segmentation": ("scenes",),
    "Training": ("losses",),
    "Data": ("domains",),
}
NAMED = "[...document.querySelectorAll('a, button')].find(e => e.textContent.trim() == '{}')"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a world whose artefacts a stand-in made."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    params = tiny(params_yaml(), ("source-gta5",))
    params["figures"] = {name: {"shows": s, "runs": [run]} for name, (s, run) in FIGURES.items()}
    world = World(tmp_path_factory.mktemp("report"), params)
    command = world.root / "bin/madan"
    command.parent.mkdir()
    stand_in = Path(__file__).with_name("stand_in.py")
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    command.chmod(0o755)
    world.env["PATH"] = f"{command.parent}:{world.env['PATH']}"
    world.snakemake("results/miou.csv", "figures")
    # A figure whose run is gone is not of a finished run, and its old picture is not shown.
    world.change("figures.gone", {"shows": "training", "runs": ["segmenters/oracle"]})
    world.snakemake("finished")
    world.snakemake("--report", "results/report.html", "finished")
    return world.root / "results/report.html"


async def _everything(page):
    """What stands under each category, pictures that came up, and what Statistics says."""
    await page.until("document.body.innerText.includes('Statistics')")
    assert "teach a segmenter F" in await page.look("document.body.innerText")
    found, pictures = {}, 0
    for category in SHOWN:
        await page.look(f"{NAMED.format(category)}.click()")
        await page.until("document.querySelectorAll('table tr').length > 1")
        rows = "[...document.querySelectorAll('table tr')].map(e => e.innerText.trim())"
        found[category] = [row for row in await page.look(rows) if row and row.lower() != "name"]
        eyes = "[...document.querySelectorAll('table a')]"
        for number in range(len(found[category]) * 2):
            await page.look(f"{eyes}[{number}]?.click()")
            await asyncio.sleep(0.3)
            pictures += await page.look(
                "[...document.images].some(i => i.naturalWidth == 90 && i.naturalHeight == 30)"
            )
        await page.look(f"{NAMED.format('Results')}.click()")
        await page.until("document.body.innerText.includes('Translation')")
    return found, pictures


def test_tables_and_pictures_are_found_and_no_request_fails(report):
    told = {}

    async def do(page):
        told["page"] = page
        return await _everything(page)

    found, pictures = visit(report, do)
    assert {name: tuple(rows) for name, rows in found.items()} == SHOWN
    assert pictures >= len(FIGURES)
    page = told["page"]
    assert not page.failed and not page.errors
    assert not [address for address in page.asked if not address.startswith(("file:", "data:"))]

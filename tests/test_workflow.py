"""The graph: which jobs a change of settings, code or files plans, and what is refused."""

import re
import shutil
from pathlib import Path

import pytest
import quick
from conftest import PROJECT, ROWS, World, params_yaml, tiny

from madan import config

RESULTS = "results/miniature"
VGG16 = "data/raw/vgg16-397923af.pth"
FROM_MADAN = {
    f"{RESULTS}/translators/madan/seed0",
    f"{RESULTS}/stylised/madan/gta5/seed0",
    f"{RESULTS}/stylised/madan/synthia/seed0",
    f"{RESULTS}/segmenters/madan-pixel/seed0",
    f"{RESULTS}/adaptations/madan/seed0",
    f"{RESULTS}/scores/adaptations/madan/cityscapes/test/seed0",
    "results/miou.csv",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished world whose artefacts a stand-in made, and whose package may be edited."""
    root = tmp_path_factory.mktemp("finished")
    world = World(root, tiny(params_yaml()))
    world.own_package()
    (root / "bin").mkdir()
    quick.server().script(root / "bin/madan", Path(__file__).with_name("stand_in.py"))
    world.env["PATH"] = f"{root}/bin:{world.env['PATH']}"
    world.snakemake()
    return world


@pytest.fixture
def done(finished):
    """The finished world, put back as it was after each test."""
    before = finished.root.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(finished.root, before, symlinks=True)
    yield finished
    shutil.rmtree(finished.root)
    before.rename(finished.root)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def kinds(planned: set[str]) -> set[str]:
    return {path.removeprefix(f"{RESULTS}/").split("/")[0] for path in planned}


def test_the_plan_holds_each_artefact_of_the_rows_once(world):
    said = world.snakemake("-n", "results/miou.csv")
    outputs = [line.split()[1] for line in said.splitlines() if "    output:" in line]
    assert len(outputs) == len(set(outputs))
    scores = {o.split("/")[4] for o in outputs if "/scores/" in o}
    assert scores == {"source-gta5", "cyclegan-gta5", "madan"}
    assert len(ROWS) == len(scores)


def test_a_finished_world_plans_nothing(done):
    assert "Nothing to be done" in done.snakemake("results/miou.csv")


def test_a_comment_or_docstring_reruns_nothing(done):
    for module in ("translation", "losses", "fcn8s"):
        path = done.root / "madan" / f"{module}.py"
        path.write_text(
            '"""Another docstring."""\n# A comment.\n' + path.read_text().split('"""', 2)[2]
        )
    assert done.planned() == set()


def test_a_changed_constant_in_translation_reruns_translators_and_what_follows(done):
    edit(done.root / "madan/translation.py", "0.999", "0.998")
    planned = done.planned()
    assert FROM_MADAN <= planned
    assert {path for path in planned if "/translators/" in path} == {
        f"{RESULTS}/translators/{run}/seed0"
        for run in ("cyclegan-gta5", "cyclegan-synthia", "madan")
    }
    assert f"{RESULTS}/segmenters/source-gta5/seed0" not in planned


def test_a_changed_module_reruns_the_commands_that_import_it(done):
    edit(done.root / "madan/adaptation.py", "/ 2", "/ 3")
    adapted = {path for path in FROM_MADAN if "adaptations" in path or "miou" in path}
    assert done.planned() == adapted
    edit(done.root / "madan/scores.py", "import numpy", "import numpy.linalg\nimport numpy")
    assert kinds(done.planned() - adapted) == {"scores"}


def test_a_changed_segmenter_rate_reruns_no_translator_without_judges(done):
    done.change("training.segmenter.lr", 0.001)
    planned = done.planned()
    assert {p for p in planned if "/translators/" in p} == {f"{RESULTS}/translators/madan/seed0"}
    assert not {p for p in planned if "/stylised/cyclegan" in p}
    assert len({p for p in planned if "/segmenters/" in p and "/scores/" not in p}) == 5


def test_a_removed_stylised_set_reruns_what_follows_from_it(done):
    shutil.rmtree(done.root / f"{RESULTS}/stylised/madan/synthia")
    expected = FROM_MADAN - {
        f"{RESULTS}/translators/madan/seed0",
        f"{RESULTS}/stylised/madan/gta5/seed0",
    }
    assert done.planned() == expected


def test_save_every_decides_no_result_and_reruns_nothing(done):
    done.change("training.save_every", 7)
    assert done.planned() == set()


def test_what_jobs_ask_a_scheduler_for_decides_no_result_and_reruns_nothing(done):
    for rule in done.params["resources"]:
        need = {"minutes": 7, "mem_mb": 123, "cpus": 2, "gpus": 1}
        done.change(f"resources.{rule}", 5 if rule == "longest" else need)
    assert done.planned() == set()


def test_a_job_asks_for_what_params_say_of_its_rule_up_to_the_longest(world):
    world.change("resources.translate", {"minutes": 7, "mem_mb": 123, "cpus": 2, "gpus": 1})
    world.change("resources.longest", 5)
    said = world.snakemake("-n", f"{RESULTS}/translators/cyclegan-gta5/seed0/certificate.json")
    job = next(part for part in said.split("\nrule ") if part.startswith("translate:"))
    assert {"mem_mb=123", "runtime=5", "gpu=1"} <= set(re.split(r"[, ]+", job.replace("\n", " ")))
    assert "threads: 2" in job


def test_every_rule_that_a_cluster_runs_asks_under_its_own_name_and_says_its_plan():
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        local = re.findall(r"^    (\w+),$", path.read_text(), re.MULTILINE)
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.split(":")[0]
            if "shell:" not in rule:  # Only a name for its inputs: nothing runs.
                continue
            asks = f'threads: cpus("{name}")' in rule and f'**asks("{name}")' in rule
            assert asks != (name in local), name
            assert "planned=planned(" in rule, f"{name}: profiles/sbatch names jobs by their plan"


def test_snakemake_looks_for_jobs_only_when_one_has_ended(done):
    """With its limit of jobs a second it looks every second, and once more for every job."""
    for gone in ("stylised/madan", "segmenters/madan-pixel"):
        shutil.rmtree(done.root / RESULTS / gone)
    slow = Path(__file__).with_name("stand_in.py")
    quick.server().script(done.root / "bin/madan", slow, before="sleep 2")
    said = done.snakemake(
        "--verbose", "--cores", "1", f"{RESULTS}/segmenters/madan-pixel/seed0/certificate.json"
    )
    assert said.count("rule stylise:") == 2 and said.count("rule segment:") == 1
    assert said.count("Resources before job selection") <= 4


def test_another_table_leaves_miou_as_it_is(done):
    other = {
        "target": "cityscapes",
        "rows": [{"row": "x", "setting": "", "run": "segmenters/source-gta5"}],
    }
    done.change("tables.other", other)
    assert done.planned("results/miou.csv") == set()
    assert done.planned("results/tables/other.csv") == {"results/tables/other.csv"}


def test_tables_that_are_finished_are_published_and_no_others(done):
    row = {"row": "x", "setting": "", "run": "segmenters/source-gta5"}
    made = {"target": "cityscapes", "rows": [row]}
    done.change("tables.made", made)
    done.change("tables.open", made | {"seeds": [7]})
    done.change("figures", {})
    done.snakemake("results/miou.csv", "results/tables/made.csv")
    done.run("madan", "publish", "shown")
    shown = {
        str(path.relative_to(done.root / "shown")) for path in (done.root / "shown").rglob("*.*")
    }
    tables = {"tables/made.csv", "tables/made.md", "tables/differences/made.csv"}
    assert shown == {"miou.csv", "metrics.json"} | tables


def test_another_seed_leaves_the_first_as_it_is(done):
    done.change("seeds", [0, 1])
    planned = done.planned()
    assert planned and not {path for path in planned if "seed0" in path}


def test_an_artefact_of_other_settings_without_provenance_is_refused_by_name(done):
    shutil.rmtree(done.root / ".snakemake")
    assert done.planned() == set()
    done.change("training.adaptation.lr", 0.5)
    said = done.snakemake("-n", expect=1)
    assert "results/miniature/adaptations/madan/seed0/certificate.json" in said
    assert "results/miniature/segmenters/source-gta5/seed0/certificate.json" not in said
    assert "rm results/miniature/adaptations/madan/seed0/certificate.json" in said


def test_an_artefact_swapped_under_its_provenance_is_refused(done):
    run = f"{RESULTS}/segmenters/source-gta5/seed0"
    shutil.copy(
        done.root / f"{RESULTS}/segmenters/stage-1/seed0/certificate.json",
        done.root / run / "certificate.json",
    )
    assert f"{run}/certificate.json" in done.snakemake("-n", expect=1)


def test_settings_changed_while_a_run_goes_on_are_caught_by_its_jobs(done):
    planned = "0.0"
    said = done.run("madan", "segment", "source-gta5", "--planned", planned, expect=1).stdout
    assert "changed since segmenters/source-gta5 was planned" in said


def test_command_line_configuration_is_refused(world):
    said = world.snakemake("-n", "--config", "scale=paper", expect=1)
    assert "params.yaml" in said and "--config is not read" in said


def test_a_misspelt_key_ends_the_plan_with_one_sentence(world):
    world.change("training.segmenter.learning_rate", 1)
    said = world.snakemake("-n", expect=1)
    assert "unknown key training.segmenter.learning_rate" in said
    assert "Traceback" not in said


def test_a_target_that_no_run_makes_is_refused_with_the_nearest(world):
    said = world.snakemake("-n", f"{RESULTS}/segmenters/poled/seed0/certificate.json", expect=1)
    assert "did you mean pooled?" in said and "Traceback" not in said


def test_missing_datasets_are_all_named_before_anything_that_needs_them_runs(world):
    world.change("scale", "paper")
    said = world.snakemake(expect=1)
    roots = "data/raw/gta5", "data/raw/synthia", "data/raw/cityscapes"
    for root, source in zip(roots, ("tu-darmstadt", "synthia-dataset", "cityscapes-"), strict=True):
        [line] = [line for line in said.splitlines() if f": {root}," in line]
        assert source in line and "GB" in line
    assert f"vgg16: {VGG16}, released weights" in said
    assert "Traceback" not in said and not (world.root / "results").exists()
    (world.root / "data/raw/gta5/images").mkdir(parents=True)
    shard = "data/prepared/paper/gta5/train-600x1080/0-of-32"
    assert world.planned(f"{shard}/certificate.json") == {shard, "data/verified/paper/gta5/train"}
    said = world.snakemake("-n", expect=1)
    assert "data/raw/synthia," in said and "data/raw/gta5," not in said


def test_another_scale_has_paths_of_its_own(done):
    done.change("scale", "paper")
    for name in ("gta5", "synthia", "cityscapes"):
        (done.root / "data/raw" / name).mkdir(parents=True)
    (done.root / VGG16).touch()
    planned = done.planned()
    assert "results/paper/translators/madan/seed0" in planned
    assert not {path for path in planned if "miniature" in path}
    done.change("scale", "miniature")
    assert done.planned() == set()


def test_another_raw_file_is_verified_and_what_follows_from_it(done):
    done.change("scale", "paper")
    image = done.root / "data/raw/cityscapes/leftImg8bit/val/a/a_leftImg8bit.png"
    for path in (image, done.root / "data/raw/gta5/a", done.root / "data/raw/synthia/a"):
        path.parent.mkdir(parents=True)
        path.touch()
    of_val, of_train = (f"data/verified/paper/cityscapes/{split}" for split in ("val", "train"))
    done.snakemake(f"{of_val}/certificate.json", f"{of_train}/certificate.json")
    assert not done.planned(f"{of_val}/certificate.json", f"{of_train}/certificate.json")
    image.with_name("b_leftImg8bit.png").touch()
    assert done.planned(f"{of_val}/certificate.json", f"{of_train}/certificate.json") == {of_val}


def test_the_papers_tables_plan_every_run_once_at_full_size(world):
    """Every run of the settings and no other, each once, for all tables together."""
    raw = params_yaml() | {"scale": "paper"}
    world.write(raw)
    for name in ("gta5", "synthia", "cityscapes", "bdd100k"):
        (world.root / "data/raw" / name).mkdir(parents=True)
    (world.root / VGG16).touch()
    said = world.snakemake("-n", "tables")
    outputs = [line.split()[1].rstrip(",") for line in said.splitlines() if "    output:" in line]
    assert len(outputs) == len(set(outputs))
    params = config.resolve(raw)
    for kind in ("segmenters", "translators", "adaptations"):
        planned = {o.split("/")[3] for o in outputs if o.startswith(f"results/paper/{kind}/")}
        assert planned == set(getattr(params, kind))
    tables = {f"results/tables/{name}.csv" for name in params.tables if name != "miou"}
    assert tables <= set(outputs) and "results/miou.csv" in outputs

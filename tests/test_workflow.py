"""The graph: which jobs a change of settings, code or files plans, and what is refused."""

import os
import re
import shutil
from pathlib import Path

import pytest
import quick
from conftest import PROJECT, ROWS, World, params_yaml, ran, tiny
from test_graph import WIRINGS

from madan import config
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph

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
FROM_ADAPTATION = {path for path in FROM_MADAN if "adaptations" in path or "miou" in path}


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
    for module in ("methods/translation", "methods/losses", "models/fcn8s"):
        path = done.root / "madan" / f"{module}.py"
        path.write_text(
            '"""Another docstring."""\n# A comment.\n' + path.read_text().split('"""', 2)[2]
        )
    assert done.planned() == set()


def test_a_changed_constant_in_translation_reruns_translators_and_what_follows(done):
    edit(done.root / "madan/methods/translation.py", "0.999", "0.998")
    planned = done.planned()
    assert FROM_MADAN <= planned
    assert {path for path in planned if "/translators/" in path} == {
        f"{RESULTS}/translators/{run}/seed0"
        for run in ("cyclegan-gta5", "cyclegan-synthia", "madan")
    }
    assert f"{RESULTS}/segmenters/source-gta5/seed0" not in planned


def test_a_changed_module_reruns_the_commands_that_import_it(done):
    edit(done.root / "madan/methods/adaptation.py", "/ 2", "/ 3")
    adapted = {path for path in FROM_MADAN if "adaptations" in path or "miou" in path}
    assert done.planned() == adapted
    path = done.root / "madan/evaluation/metrics.py"
    edit(path, "import numpy", "import numpy.linalg\nimport numpy")
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
        done.change(f"resources.{rule}", {"longest": 5, "gres": "gpu"}.get(rule, need))
    assert done.planned() == set()


def test_a_job_asks_for_what_params_say_of_its_rule_up_to_the_longest(world):
    world.change("resources.translate", {"minutes": 7, "mem_mb": 123, "cpus": 2, "gpus": 1})
    world.change("resources.longest", 5)
    said = world.snakemake("-n", f"{RESULTS}/translators/cyclegan-gta5/seed0/certificate.json")
    job = next(part for part in said.split("\nrule ") if part.startswith("translate:"))
    assert {"mem_mb=123", "runtime=5", "gpu=1"} <= set(re.split(r"[, ]+", job.replace("\n", " ")))
    assert "threads: 2" in job


def test_a_run_asks_for_its_own_gpus_and_every_other_run_for_those_of_its_rule(world):
    world.change("translators.madan.gpus", 3)
    said = world.snakemake("-n", *(f"{RESULTS}/translators/{name}/seed0/certificate.json"
                                   for name in ("madan", "cyclegan-gta5")))  # fmt: skip
    jobs = [part for part in said.split("\nrule ") if part.startswith("translate:")]
    asked = {
        re.search(r"translator=([a-z0-9-]+)", job)[1]: re.search(r"\bgpu=(\d+)", job)[1]
        for job in jobs
    }
    assert asked["madan"] == "3" and asked["cyclegan-gta5"] == "0"


def test_every_rule_that_a_cluster_runs_asks_under_its_own_name_and_says_its_plan():
    for path in (PROJECT / "workflow/rules").glob("*.smk"):
        local = re.findall(r"^    (\w+),$", path.read_text(), re.MULTILINE)
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.split(":")[0]
            if "shell:" not in rule:  # Only a name for its inputs: nothing runs.
                continue
            asks = f'threads: cpus("{name}")' in rule and f'**asks("{name}"' in rule
            assert asks != (name in local), name
            assert ".planned,\n" in rule, f"{name}: profiles/sbatch names jobs by their plan"
            assert ".rebuild,\n" in rule, f"{name}: what is out of date is not made anew"
            assert rule.split("\n")[1].strip().startswith('"""'), f"{name}: no docstring"


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
    assert shown == {"miou.csv", "metrics.json", ".madan-publish.sha256"} | tables


def test_another_seed_leaves_the_first_as_it_is(done):
    done.change("seeds", [0, 1])
    planned = done.planned()
    assert planned and not {path for path in planned if "seed0" in path}


def test_settings_changed_without_snakemakes_records_are_made_anew_and_counted(done):
    shutil.rmtree(done.root / ".snakemake")
    assert done.planned() == set()
    done.change("training.adaptation.lr", 0.5)
    said = done.snakemake("-n")
    assert "1 because training.adaptation.lr was 0.0001, is 0.5 (adaptations/madan seed 0)" in said
    assert done.planned() == {
        path for path in FROM_MADAN if "adaptations" in path or "miou" in path
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--persistence-backend", "db"],
        ["--rerun-triggers", "params"],
        ["--rerun-triggers", "code", "input", "software-env"],
        ["--rerun-triggers", "mtime"],
        ["--workflow-profile", "none"],
        ["--max-checksum-file-size", "0"],
        ["--ignore-incomplete"],
    ],
    ids=" ".join,
)
def test_no_option_of_snakemake_takes_old_results_for_todays(done, options):
    done.change("training.adaptation.lr", 0.5)
    assert ran(done.snakemake("-n", *options)) == FROM_ADAPTATION
    done.snakemake("--touch", *options)
    assert ran(done.snakemake("-n", *options)) == FROM_ADAPTATION
    done.snakemake(*options)
    assert "Nothing to be done" in done.snakemake("-n", *options)


def test_touching_cleaning_and_listing_change_nothing(done):
    table = (done.root / "results/miou.csv").read_bytes()
    for words in (["--touch"], ["--cleanup-metadata", "results/miou.csv"], ["--summary"],
                  ["--list"], ["--delete-all-output", "-n"], ["--rulegraph"]):  # fmt: skip
        done.snakemake(*words)
        assert done.planned() == set(), words
    assert (done.root / "results/miou.csv").read_bytes() == table


def test_what_is_forced_is_made_again_with_the_same_bytes_and_nothing_else(done):
    before = (done.root / "results/miou.csv").read_bytes()
    said = done.snakemake("--forcerun", "adapt", "--until", "adapt")
    assert ran(said) == {f"{RESULTS}/adaptations/madan/seed0"}
    assert done.planned() == set()
    assert (done.root / "results/miou.csv").read_bytes() == before


def test_what_a_forced_job_hides_is_no_success(done):
    done.change("training.adaptation.lr", 0.5)
    made = done.run("snakemake", "--cores", "2", "--forcerun", "verify", expect=1).stdout
    assert "results are still out of date (3, such as adaptations/madan seed 0)" in made
    done.snakemake()
    assert done.planned() == set()
    assert not done.run("snakemake", "--cores", "2", "--forcerun", "verify").returncode


def test_a_finished_world_is_finished_from_another_folder_and_whatever_its_times(done, tmp_path):
    paths = sorted((done.root / "results").rglob("*"), reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, (1e9 + number, 1e9 + number))
    assert done.planned() == set()
    for path in paths:
        os.utime(path, (4e9, 4e9))  # A clock that was once wrong.
    assert done.planned() == set()
    done.change("training.adaptation.lr", 0.5)
    assert f"{RESULTS}/adaptations/madan/seed0" in ran(done.snakemake())
    other = done.beside(tmp_path)
    said = other.snakemake("-n", "--directory", done.root, "--snakefile", done.root / "Snakefile")
    assert "Nothing to be done" in said


def test_a_certificate_of_another_artefact_is_noticed(done):
    run = f"{RESULTS}/segmenters/source-gta5/seed0"
    other = done.root / f"{RESULTS}/segmenters/stage-1/seed0/certificate.json"
    shutil.copy(other, done.root / run / "certificate.json")
    assert run in done.planned()


@pytest.mark.parametrize("change", WIRINGS)
def test_another_wiring_plans_exactly_its_jobs_and_what_follows(done, change):
    file, old, new, kinds_of_code = WIRINGS[change]
    edit(done.root / "madan" / file, old, new)
    planned = kinds(done.planned())
    assert planned and (kinds_of_code & {"translators", "segmenters"} <= planned)
    done.snakemake()
    assert done.planned() == set()


def test_rulegraph_has_the_arrows_of_the_roles_alone(done):
    said = done.snakemake("--forceall", "--rulegraph", "dot")
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', said))
    arrows = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", said)}
    assert ("translate", "stylise") in arrows and ("stylise", "segment") in arrows
    assert ("miniature", "verify") in arrows and ("evaluate", "miou") in arrows
    # F_A of a translator goes on as F of stage 3; nothing else of a segmenter is a translator's.
    graph = Graph(config.resolve(done.params))
    made = [each for each in graph.ancestry([parse("tables/miou")]) if each.kind == "segmenters"]
    starts = [
        each for run in made for named in graph.roles(run)["start"].values() for each in named
    ]
    assert (("translate", "segment") in arrows) == any(e.kind == "translators" for e in starts)
    assert ("translate", "adapt") not in arrows and ("prepare", "miou") not in arrows


def test_list_shows_what_every_rule_does(world):
    said = world.snakemake("--list")
    for line in ("Train generators from the sources to the target.", "Score a segmenter"):
        assert line in said


def test_settings_changed_while_a_run_goes_on_are_caught_by_its_jobs(done):
    planned = "0.0"
    said = done.run("madan", "segment", "source-gta5", "--planned", planned, expect=1).stdout
    assert "changed since segmenters/source-gta5 seed 0 was planned" in said


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


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("results/paper/released/vgg16/certificate.json", {VGG16}),
        ("data/verified/paper/synthia/train/certificate.json", {"data/raw/synthia"}),
        ("results/paper/segmenters/source-gta5/seed0/certificate.json", {"data/raw/gta5", VGG16}),
        ("finished", set()),
    ],
)
def test_only_what_the_target_needs_is_named_as_missing(world, target, named):
    world.change("scale", "paper")
    said = world.snakemake("-n", target, expect=1 if named else 0)
    roots = "data/raw/gta5", "data/raw/synthia", "data/raw/cityscapes", VGG16
    assert {root for root in roots if f": {root}," in said} == named


def test_every_split_is_verified_before_anything_is_trained(tmp_path):
    """So that a missing or damaged evaluation split is reported at once."""
    world = World(tmp_path, tiny(params_yaml()))
    (tmp_path / "bin").mkdir()
    quick.server().script(tmp_path / "bin/madan", Path(__file__).with_name("stand_in.py"))
    world.env["PATH"] = f"{tmp_path}/bin:{world.env['PATH']}"
    said = world.snakemake()
    jobs = re.findall(r"^(?:local)?rule (\w+):$", said, re.MULTILINE)
    verified = [k for k, rule in enumerate(jobs) if rule == "verify"]
    trained = [k for k, rule in enumerate(jobs) if rule in ("segment", "translate", "adapt")]
    assert len(verified) == 4 and len(trained) > 4
    assert max(verified) < min(trained)


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

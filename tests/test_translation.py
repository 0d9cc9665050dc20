"""Facts of pixel-level training: who moves whom, what the switches mean, what CycleGAN is."""

import copy
import itertools

import pytest
import torch
from conftest import tiny, write_set

from madan import batches, checkpoints, config, losses, schema, segmentation, training
from madan.discriminators import ImagePool, PatchGAN
from madan.generator import Generator
from madan.translation import Made, Translator

SOURCES = ("one", "two", "three")
CROP = (16, 32)


@pytest.fixture
def params(raw):
    raw = tiny(raw)
    raw["training"]["translator"] |= {"crop": list(CROP), "batch": 2, "pool": 3, "steps": 10}
    raw["training"]["translator"]["gates"] = {"sad": 0, "ccd": 0}
    return config.resolve(raw)


@pytest.fixture
def build(params, tmp_path):
    """A translator over the first M random sources, with the switches given."""
    sets = {name: write_set(tmp_path / name, name, seed=k) for k, name in enumerate(SOURCES)}
    target = write_set(tmp_path / "target", "target", seed=9)

    def build(count=2, seed=0, settings=None, **switches):
        training.begin(seed, 1)
        sources = {name: sets[name] for name in SOURCES[:count]}
        run = schema.Translator(sources=list(sources), target="target", **switches)
        more = {}
        if run.semantic != "none":
            more["judges"] = {
                name: segmentation.build(params.networks.segmenter) for name in sources
            }
        if run.task:
            more["task"] = segmentation.build(params.networks.segmenter)
        settings = params.training.translator.model_copy(update=settings or {})
        more |= {"steps": settings.steps, "seed": seed}
        return Translator(run, settings, params.networks, sources, target, **more)

    return build


def dsc(**more):
    judges = dict.fromkeys(SOURCES[:2], "judge")
    task = {"start": "judge", "update_every": 1} | more
    return {"semantic": "dsc", "judges": judges, "task": task}


def pairs(names):
    """All ordered pairs of two."""
    return list(itertools.permutations(names, 2))


def weights(modules):
    return {name: copy.deepcopy(module.state_dict()) for name, module in modules.items()}


def moved(before, modules):
    """Names of the modules whose weights differ from before."""
    now = {name: module.state_dict() for name, module in modules.items()}
    return {n for n in now if any(not torch.equal(before[n][key], now[n][key]) for key in now[n])}


def test_one_source_with_all_switches_off_is_cyclegan_step_by_step(build, params):
    """The reference is CycleGAN's algorithm written out for two domains, A and B."""
    ours = build(count=1)
    settings = params.training.translator
    training.begin(0, 1)
    sizes, judged = params.networks.generator, params.networks.discriminator
    g_ab, g_ba = (Generator(**sizes.model_dump()) for _ in range(2))
    d_a, d_b = (PatchGAN(**judged.model_dump()) for _ in range(2))
    pool_b, pool_a = (ImagePool(size=settings.pool, shape=(3, *CROP)) for _ in range(2))
    parts = [p for g in (g_ab, g_ba) for n, p in g.named_parameters() if n != "colour.weight"]
    groups = [{"params": parts, "factor": 1.0}]
    groups += [{"params": [g_ab.colour.weight, g_ba.colour.weight], "factor": settings.colour_lr}]
    betas = (settings.beta1, 0.999)
    of_g = torch.optim.Adam(groups, settings.lr, betas, fused=True)
    judges = [*d_a.parameters(), *d_b.parameters()]
    of_d = torch.optim.Adam(judges, settings.lr_discriminator, betas, fused=True)
    for step in range(4):
        torch.manual_seed(step)
        ours.update(step)
        torch.manual_seed(step)
        factor = training.linear_decay(step, settings.steps, settings.decay_from)
        training.set_rate(of_g, settings.lr * factor)
        training.set_rate(of_d, settings.lr_discriminator * factor)
        a = batches.draw(ours.sources["one"], 0, step, 2, CROP, settings.flip).images
        b = batches.draw(ours.target, 0, step, 2, CROP, settings.flip).images
        fake_b, fake_a = g_ab(a), g_ba(b)
        loss = (d_b(fake_b) - 1).pow(2).mean() + (d_a(fake_a) - 1).pow(2).mean()
        circle = (g_ba(fake_b) - a).abs().mean() + (g_ab(fake_a) - b).abs().mean()
        of_g.zero_grad()
        (loss + settings.weights.cycle * circle).backward()
        of_g.step()
        old_b = pool_b.query(fake_b)
        old_a = pool_a.query(fake_a)
        loss_a = (d_a(a) - 1).pow(2).mean() + d_a(old_a).pow(2).mean()
        loss_b = (d_b(b) - 1).pow(2).mean() + d_b(old_b).pow(2).mean()
        of_d.zero_grad()
        ((loss_a + loss_b) / 2).backward()
        of_d.step()
    pairs = {"G_one": g_ab, "GT_one": g_ba, "D_one": d_a, "DT": d_b}
    for name, reference in pairs.items():
        for key, value in reference.state_dict().items():
            torch.testing.assert_close(ours.networks()[name].state_dict()[key], value)


def test_each_half_of_a_step_moves_only_its_own_networks(build):
    method = build(sad=True, ccd=True, **dsc())
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES[:2]}
    before = weights(method.networks())
    made, _ = method._update_generators(x, x["one"], sad=pairs(x), ccd=pairs(x))
    assert moved(before, method.networks()) == set(method.generators)
    before = weights(method.networks())
    method._update_discriminators(x, x["one"], made, sad=pairs(x), ccd=pairs(x))
    assert moved(before, method.networks()) == set(method.discriminators)
    before = weights(method.networks())
    method._update_task(method.task, made.adapted, torch.zeros(4, *CROP, dtype=torch.long))
    assert moved(before, method.networks()) == {"FA"}


def test_judges_never_move_and_collect_no_gradient(build):
    method = build(**dsc())
    before = weights(method.judges)
    method.update(0)
    assert moved(before, method.judges) == set()
    for judge in method.judges.values():
        assert not judge.training
        assert all(p.grad is None for p in judge.parameters())


def test_consistency_compares_the_moving_task_segmenter_with_the_source_judge(build):
    method = build(**dsc())
    source, adapted = torch.rand(2, 2, 3, *CROP) * 2 - 1
    x, made = {"one": source, "two": source}, {"one": adapted, "two": source}
    said = method._semantic(x, made)["semantic.one"]
    method.task.eval()
    expected = losses.semantic_consistency(
        method.task(batches.imagenet(adapted)), method.judges["one"](batches.imagenet(source))
    )
    torch.testing.assert_close(said, expected)
    with torch.no_grad():
        next(method.task.parameters()).add_(0.5)
    assert method._semantic(x, made)["semantic.one"] != said


def test_sc_has_the_same_frozen_judge_on_both_images(build):
    method = build(semantic="sc", judges=dict.fromkeys(SOURCES[:2], "judge"))
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES[:2]}
    assert [term.item() for term in method._semantic(x, x).values()] == pytest.approx([0, 0], abs=1e-6)


def test_sad_and_ccd_run_over_ordered_pairs_of_three_sources(build):
    method = build(count=3, sad=True, ccd=True)
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES}
    adapted = {i: method.G(i)(x[i]) for i in SOURCES}
    sad = sum(losses.adversarial(method.DA("two")(adapted[j]), True) for j in ("one", "three")) / 2
    crossed = [method.GT("two")(adapted[j]) for j in ("one", "three")]
    ccd = sum(losses.adversarial(method.D("two")(image), True) for image in crossed) / 2
    figures = method._update_generators(x, x["one"], sad=pairs(x), ccd=pairs(x))[1]
    torch.testing.assert_close(figures["sad.two"], sad.detach())
    torch.testing.assert_close(figures["ccd.two"], ccd.detach())


def test_d_a_learns_its_own_adapted_domain_as_real_and_the_others_as_fake(build):
    method = build(sad=True, settings={"pool": 0})
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES[:2]}
    d = method.DA("one")
    expected = ((d(x["one"]) - 1).pow(2).mean() + d(x["two"]).pow(2).mean()) / 2
    figures = method._update_discriminators(x, x["one"], Made(x, x, {}), pairs(x), [])
    torch.testing.assert_close(figures["d_sad.one"], expected.detach())


def test_a_closed_gate_leaves_its_term_out(build):
    method = build(sad=True, ccd=True, settings={"gates": schema.Gates(sad=0.2, ccd=0.4)})
    said = {step: set(method.update(step)) for step in (1, 2, 3, 4)}
    assert not {name for name in said[1] if "sad" in name or "ccd" in name}
    assert {"sad.one", "d_sad.two"} <= said[2] and "ccd.one" not in said[3]
    assert "ccd.two" in said[4]


def test_identity_keeps_images_that_are_in_the_domain_already(build):
    weights = build().settings.weights.model_copy(update={"identity": 0.5})
    method = build(count=1, settings={"weights": weights})
    x, x_target = torch.rand(2, 2, 3, *CROP) * 2 - 1
    kept = (method.G("one")(x_target) - x_target).abs().mean()
    kept = kept + (method.GT("one")(x) - x).abs().mean()
    figures = method._update_generators({"one": x}, x_target, sad=[], ccd=[])[1]
    torch.testing.assert_close(figures["identity.one"], kept.detach())


def test_each_history_is_asked_once_a_step(build, monkeypatch):
    method = build(sad=True, ccd=True)
    asked = []
    query = ImagePool.query
    monkeypatch.setattr(ImagePool, "query", lambda pool, x: asked.append(pool) or query(pool, x))
    method.update(0)
    assert sorted(map(id, asked)) == sorted(map(id, method.pools.values()))


def test_pulls_of_sad_reach_every_generator(build):
    zero = dict.fromkeys(schema.TranslatorWeights.model_fields, 0.0)
    method = build(sad=True, settings={"weights": schema.TranslatorWeights(**zero | {"sad": 1.0})})
    method.update(0)
    for i in SOURCES[:2]:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.G(i).parameters())


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [0, 1, 2, 3]), (2, [0, 2])])
def test_the_task_segmenter_learns_every_nth_step(build, every, steps):
    method = build(**dsc(update_every=every))
    assert [step for step in range(4) if "task" in method.update(step)] == steps


def test_separate_target_discriminators_are_one_for_each_source(build):
    method = build(shared=False)
    assert {name for name in method.discriminators if name.startswith("DT")} == {"DT_one", "DT_two"}
    assert {"d_target.one", "d_target.two"} <= set(method.update(0))


def test_a_stage_goes_on_from_the_networks_of_the_one_before(build, tmp_path):
    made = []
    for number, name in enumerate(("one", "two")):
        before = build(count=2, seed=number + 5)
        parts = {n: m for n, m in before.networks().items() if n == "DT" or n.endswith(f"_{name}")}
        path = tmp_path / f"{name}.safetensors"
        checkpoints.save(path, parts, {})
        made.append((schema.Translator(sources=[name], target="target"), path, parts))
    method = build()
    method.start((run, path) for run, path, _ in made)
    for number, (_, _, parts) in enumerate(made):
        for name, module in parts.items():
            same = not moved({name: module.state_dict()}, {name: method.networks()[name]})
            assert same == (name != "DT" or number == 0)


def test_colour_matrix_learns_at_its_own_rate(build, params):
    method = build(count=1)
    method.update(0)
    rates = {group["lr"] for group in method.optimizers["G"].param_groups}
    lr = params.training.translator.lr
    assert rates == {lr, lr * params.training.translator.colour_lr}

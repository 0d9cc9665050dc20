"""Facts of pixel-level training: who moves whom, what the switches mean, what CycleGAN is."""

import collections
import copy
import itertools
import math

import pytest
import torch
from conftest import tiny, write_set

from madan import config
from madan.config import schema
from madan.config.training_settings import Gates, TranslatorWeights
from madan.data import batches
from madan.engine import training
from madan.methods import losses, segmentation
from madan.methods.translation import Made, Scale, Translator
from madan.models import checkpoints
from madan.models.discriminators import ImagePool, PatchGAN
from madan.models.generator import Generator

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


def dsc(names=SOURCES[:2], **more):
    judges = dict.fromkeys(names, "judge")
    task = {"start": "judge", "update_every": 1} | more
    return {"semantic": "dsc", "judges": judges, "task": task}


def pairs(names):
    """All ordered pairs of two."""
    return list(itertools.permutations(names, 2))


def exact(method):
    """The method in double precision, where rounding does not show.

    In single precision Adam makes whole steps of the rounding errors of gradients that ought to be
    0, such as those of a bias before a normalisation.
    """
    for module in (*method.modules.values(), *method.judges.values()):
        module.double()
    draw = method._draw
    method._draw = lambda *which: {
        name: batch._replace(images=batch.images.double()) for name, batch in draw(*which).items()
    }
    return method


def weights(modules):
    return {name: copy.deepcopy(module.state_dict()) for name, module in modules.items()}


def moved(before, modules):
    """Names of the modules whose weights differ from before."""
    now = {name: module.state_dict() for name, module in modules.items()}
    return {n for n in now if any(not torch.equal(before[n][key], now[n][key]) for key in now[n])}


def test_one_source_with_all_switches_off_is_cyclegan_step_by_step(build, params):
    """The reference is CycleGAN's algorithm written out for two domains, A and B."""
    ours = exact(build(count=1))
    settings = params.training.translator
    training.begin(0, 1)
    sizes, judged = params.networks.generator, params.networks.discriminator
    g_ab, g_ba = (Generator(**sizes.model_dump()) for _ in range(2))
    d_a, d_b = (PatchGAN(**judged.model_dump()) for _ in range(2))
    pool_b, pool_a = (ImagePool(size=settings.pool, shape=(3, *CROP)) for _ in range(2))
    parts = [p for g in (g_ab, g_ba) for n, p in g.named_parameters() if n != "colour.weight"]
    groups = [{"params": parts, "factor": 1.0}]
    groups += [{"params": [g_ab.colour.weight, g_ba.colour.weight], "factor": settings.colour_lr}]
    for module in (g_ab, g_ba, d_a, d_b, pool_a, pool_b):
        module.double()
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
        drawn = ours._draw(step)
        a, b = drawn["one"].images, drawn[""].images
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


def by_the_formulas(method, step):
    """One step of MADAN with all gates open, a formula and a call of a network at a time."""
    settings, names, drawn = method.settings, list(method.sources), method._draw(step)
    x, x_t, w = {i: drawn[i].images for i in names}, drawn[""].images, settings.weights
    g, gt, d, dt, da = method.G, method.GT, method.D, method.DT, method.DA
    share = 1 / (len(names) - 1)
    real, fake = (lambda out: (out - 1).pow(2).mean()), (lambda out: out.pow(2).mean())
    view = batches.imagenet
    training.set_rate(method.optimizers["G"], settings.lr)
    training.set_rate(method.optimizers["D"], settings.lr_discriminator)
    method.optimizers["G"].zero_grad()
    adapted, back = {i: g(i)(x[i]) for i in names}, {i: gt(i)(x_t) for i in names}
    total = 0
    for i in names:
        others = [j for j in names if j != i]
        total += w.gan_target * real(dt(i)(adapted[i])) + w.gan_source * real(d(i)(back[i]))
        total += w.cycle * (gt(i)(adapted[i]) - x[i]).abs().mean()
        total += w.cycle * (g(i)(back[i]) - x_t).abs().mean()
        total += w.identity * (g(i)(x_t) - x_t).abs().mean()
        total += w.identity * (gt(i)(x[i]) - x[i]).abs().mean()
        now = method.task.eval()(view(adapted[i])).log_softmax(1)
        then = method.judges[i](view(x[i])).log_softmax(1)
        total += w.semantic * (now.exp() * (now - then)).sum(1).mean()
        total += w.sad * share * sum(real(da(i)(adapted[j])) for j in others)
        total += w.ccd * share * sum(real(d(i)(gt(i)(adapted[j]))) for j in others)
    crossed = {i: [gt(i)(adapted[j]).detach() for j in names if j != i] for i in names}
    total.backward()
    method.optimizers["G"].step()

    method.optimizers["D"].zero_grad()
    shown = {i: method.pools[f"pool_T_{i}"].query(adapted[i]) for i in names}
    total = 0
    for i in names:
        fakes = [method.pools[f"pool_{i}"].query(back[i]), *crossed[i]]
        total += (real(d(i)(x[i])) + sum(fake(d(i)(image)) for image in fakes) / len(fakes)) / 2
        others = sum(fake(da(i)(shown[j])) for j in names if j != i)
        total += (real(da(i)(shown[i])) + share * others) / 2
        targets = [i] if not method.run.shared else names
        total += (real(dt(i)(x_t)) + fake(dt(i)(shown[i]))) / 2 / len(targets)
    total.backward()
    method.optimizers["D"].step()

    method.optimizers["FA"].zero_grad()
    method.task.train()
    scores = method.task(view(torch.cat(list(adapted.values())).detach()))
    truth = torch.cat([drawn[i].labels for i in names])
    torch.nn.functional.cross_entropy(scores, truth, ignore_index=255).backward()
    method.optimizers["FA"].step()


@pytest.mark.parametrize(("count", "shared"), [(2, True), (2, False), (3, True)])
def test_networks_that_see_their_images_at_once_learn_what_the_formulas_say(build, count, shared):
    weights = build().settings.weights.model_copy(update={"identity": 0.5})
    more = {"weights": weights, "decay_from": 1.0}
    switches = dsc(SOURCES[:count]) | {"sad": True, "ccd": True, "shared": shared}
    ours, theirs = (exact(build(count, settings=more, **switches)) for _ in range(2))
    for step in range(3):
        torch.manual_seed(step)
        ours.update(step)
        torch.manual_seed(step)
        by_the_formulas(theirs, step)
    for name, network in theirs.networks().items():
        for key, value in network.state_dict().items():
            torch.testing.assert_close(ours.networks()[name].state_dict()[key], value)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_batch_in_parts_has_the_gradients_and_the_figures_of_the_whole(build, parts):
    found = []
    for accumulate in (1, parts):
        settings = {"accumulate": accumulate, "batch": 4}
        method = exact(build(sad=True, ccd=True, settings=settings, **dsc()))
        for module in method.task.modules():
            if isinstance(module, torch.nn.Dropout2d):
                module.p = 0
        seen = []
        for net in (method.G("one"), method.task):
            net.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        figures = method.update(0)
        gradients = [p.grad.flatten() for m in method.networks().values() for p in m.parameters()]
        found.append((figures, torch.cat(gradients), max(seen)))
    (whole, gradient, most), (in_parts, summed, fewer) = found
    assert fewer == -(-4 // parts) * most // 4
    assert in_parts == pytest.approx(whole, rel=1e-9)
    assert (summed - gradient).norm() < 1e-9 * gradient.norm()


def test_each_half_of_a_step_moves_only_its_own_networks(build):
    method = build(sad=True, ccd=True, **dsc())
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES[:2]}
    before = weights(method.networks())
    scale = Scale(x, x["one"], pairs(x), pairs(x))
    made, _ = method._update_generators([scale])
    assert moved(before, method.networks()) == set(method.generators)
    before = weights(method.networks())
    method._update_discriminators([scale], made)
    assert moved(before, method.networks()) == set(method.discriminators)
    before = weights(method.networks())
    method._update_task(method.task, made[0].adapted, torch.zeros(4, *CROP, dtype=torch.long))
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
    assert [term.item() for term in method._semantic(x, x).values()] == pytest.approx(
        [0, 0], abs=1e-6
    )


def test_sad_and_ccd_run_over_ordered_pairs_of_three_sources(build):
    method = build(count=3, sad=True, ccd=True)
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES}
    adapted = {i: method.G(i)(x[i]) for i in SOURCES}
    sad = sum(losses.adversarial(method.DA("two")(adapted[j]), True) for j in ("one", "three")) / 2
    crossed = [method.GT("two")(adapted[j]) for j in ("one", "three")]
    ccd = sum(losses.adversarial(method.D("two")(image), True) for image in crossed) / 2
    figures = method._update_generators([Scale(x, x["one"], pairs(x), pairs(x))])[1]
    torch.testing.assert_close(figures["sad.two"], sad.detach())
    torch.testing.assert_close(figures["ccd.two"], ccd.detach())


@pytest.mark.parametrize("drawn", [1, 2])
def test_pairs_that_are_drawn_mean_what_all_of_them_say(build, drawn):
    """Over every draw that there is, the mean of each term is the term over all pairs."""
    method = build(count=3, sad=True, ccd=True, settings={"pool": 0})
    training.set_rate(method.optimizers["D"], 0.0)
    x = {name: torch.rand(1, 3, *CROP) * 2 - 1 for name in SOURCES}

    def terms(taken):
        with torch.no_grad():
            made, _ = method._generate(x, x["one"], taken)
            pulls = method._fool(made, taken, taken)
        return pulls | method._update_discriminators([Scale(x, x["one"], taken, taken)], [made])

    all_of_them = terms(pairs(SOURCES))
    found = [terms(list(some)) for some in itertools.combinations(pairs(SOURCES), drawn)]
    for name, value in all_of_them.items():
        mean = torch.stack([each[name] for each in found]).mean()
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)
    assert found[0]["sad.three"] == 0 != found[0]["sad.one"]


def test_drawn_pairs_are_a_function_of_seed_and_step_and_all_are_drawn_as_often(build):
    method, same = (build(count=3, sad=True, ccd=True, settings={"pairs": 2}) for _ in range(2))
    steps = [method._pairs(step) for step in range(600)]
    assert steps == [same._pairs(step) for step in range(600)]
    assert {len(set(each)) for each in steps} == {2}
    counts = collections.Counter(pair for each in steps for pair in each)
    assert set(counts) == set(pairs(SOURCES)) and min(counts.values()) > 160
    assert method._pairs(0) != build(3, seed=1, sad=True, settings={"pairs": 2})._pairs(0)


def test_three_sources_with_drawn_pairs_train(build):
    method = build(count=3, sad=True, ccd=True, settings={"pairs": 2})
    before = weights(method.networks())
    assert all(math.isfinite(value) for step in range(2) for value in method.update(step).values())
    assert moved(before, method.networks()) == set(method.networks())


def test_d_a_learns_its_own_adapted_domain_as_real_and_the_others_as_fake(build):
    method = build(sad=True, settings={"pool": 0})
    x = {name: torch.rand(2, 3, *CROP) * 2 - 1 for name in SOURCES[:2]}
    d = method.DA("one")
    expected = ((d(x["one"]) - 1).pow(2).mean() + d(x["two"]).pow(2).mean()) / 2
    figures = method._update_discriminators([Scale(x, x["one"], pairs(x), [])], [Made(x, x, {})])
    torch.testing.assert_close(figures["d_sad.one"], expected.detach())


def test_a_closed_gate_leaves_its_term_out(build):
    method = build(sad=True, ccd=True, settings={"gates": Gates(sad=0.2, ccd=0.4)})
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
    figures = method._update_generators([Scale({"one": x}, x_target, [], [])])[1]
    torch.testing.assert_close(figures["identity.one"], kept.detach())


def test_each_history_is_asked_once_a_step(build, monkeypatch):
    method = build(sad=True, ccd=True)
    asked = []
    query = ImagePool.query
    monkeypatch.setattr(ImagePool, "query", lambda pool, x: asked.append(pool) or query(pool, x))
    method.update(0)
    assert sorted(map(id, asked)) == sorted(map(id, method.pools.values()))


def test_pulls_of_sad_reach_every_generator(build):
    zero = dict.fromkeys(TranslatorWeights.model_fields, 0.0)
    method = build(sad=True, settings={"weights": TranslatorWeights(**zero | {"sad": 1.0})})
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


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1]),
        ("linear", [1, 1, 2 / 6]),
        ("one-cycle", [training.one_cycle(step, 10) for step in (0, 4, 8)]),
    ],
)
def test_rate_of_the_task_segmenter_is_a_function_of_the_step(build, params, schedule, expected):
    method = build(**dsc(schedule=schedule, lr=0.5), settings={"decay_from": 0.4})
    rates = []
    for step in (0, 4, 8):
        method.update(step)
        rates.append(method.optimizers["FA"].param_groups[0]["lr"] / 0.5)
    assert rates == pytest.approx(expected)
    task_lr = params.training.translator.task_lr
    assert build(**dsc())._task_rate(3) == pytest.approx(task_lr)


def test_a_start_from_another_kind_of_run_or_another_source_is_refused(build, params, tmp_path):
    method = build()
    run = schema.Translator(sources=["one", "two"], target="target")
    path = tmp_path / "weights.safetensors"
    checkpoints.save(path, {"F": segmentation.build(params.networks.segmenter)}, {})
    with pytest.raises(schema.Refusal, match="no weights of G_one; it was made by another kind"):
        method.start([(run, path)])
    alone = {n: m for n, m in build(count=1, seed=3).networks().items()}
    checkpoints.save(path, alone, {})
    with pytest.raises(schema.Refusal, match="no weights of G_two"):
        method.start([(run, path)])


def test_a_batch_without_labels_leaves_the_task_segmenter_as_it_was(build):
    method = build(**dsc())
    before = weights({"FA": method.task})
    adapted = {name: torch.rand(2, 3, *CROP) for name in SOURCES[:2]}
    loss = method._update_task(method.task, adapted, torch.full((4, *CROP), 255))
    assert loss == 0
    assert moved(before, {"FA": method.task}) == set()


@pytest.mark.parametrize("weighed", [True, False])
def test_a_class_that_no_source_has_leaves_the_task_segmenter_finite(build, weighed):
    method = build(**dsc())
    found = torch.tensor([100] + [0] * 18).numpy()
    method.class_weights = batches.class_weights([found, found], 0.5, 12) if weighed else None
    adapted = {name: torch.rand(2, 3, *CROP) for name in SOURCES[:2]}
    assert method._update_task(method.task, adapted, torch.zeros(4, *CROP).long()).isfinite()
    assert all(p.isfinite().all() for p in method.task.parameters())


def test_a_label_that_is_no_class_never_trains_the_task_segmenter(build):
    method = build(**dsc())
    adapted = {name: torch.rand(2, 3, *CROP) for name in SOURCES[:2]}
    with pytest.raises(IndexError, match="19"):
        method._update_task(method.task, adapted, torch.full((4, *CROP), 19))

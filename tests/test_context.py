"""CAG of MADAN+: crops around one centre, terms summed over crop sizes, resuming."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny, write_set
from hypothesis import given, settings
from hypothesis import strategies as st
from test_translation import dsc, exact, moved, weights

from madan import config
from madan.config import schema
from madan.data import batches
from madan.engine import training
from madan.errors import Refusal
from madan.methods import context, segmentation
from madan.methods.translation import Translator

CROP = (16, 24)
FURTHER = [(8, 12), (24, 36)]
SIZE = (24, 40)
CROPS = [CROP, *FURTHER]


@pytest.fixture
def sets(tmp_path):
    names = ("one", "two", "three", "target")
    return {n: write_set(tmp_path / n, n, size=SIZE, seed=k) for k, n in enumerate(names)}


def test_windows_by_hand():
    found = [context.window((30, 50), (0.5, 0.0), CROPS, k, "x") for k in range(3)]
    # The largest has rooms of 7 and 15 places: the middle one, and the left one.
    assert found[2] == (slice(3, 27), slice(0, 36))
    assert found[0] == (slice(7, 23), slice(6, 30))
    assert found[1] == (slice(11, 19), slice(12, 24))


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(sizes, min_size=1, max_size=4),
    st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    sizes,
)
def test_all_crops_lie_in_the_image_around_one_centre(crops, place, room):
    size = [max(crop[side] for crop in crops) + room[side] for side in (0, 1)]
    found = [context.window(size, place, crops, k, "x") for k in range(len(crops))]
    for side in (0, 1):
        centres = [(part[side].start + part[side].stop) / 2 for part in found]
        assert max(centres) - min(centres) <= 1
        for part, crop in zip(found, crops, strict=True):
            assert 0 <= part[side].start and part[side].stop <= size[side]
            assert part[side].stop - part[side].start == crop[side]


def drawn(pictures, number, crops=CROPS, step=2, flip=False, labelled=False):
    return context.draw(pictures, 0, step, 4, crops, number, flip, labelled)


def test_crops_are_brought_to_the_resolution_of_the_first(sets):
    whole = [drawn(sets["one"], 0, [SIZE], step=k).images for k in range(2)]
    assert whole[0].shape == (4, 3, *SIZE)
    places = batches.stream(0, "centre", 2).random((4, 2))
    order = batches.order(0, "one", 2, 4, 4)
    for number in range(3):
        images = drawn(sets["one"], number).images
        assert images.shape == (4, 3, *CROP)
        for row, index in enumerate(order):
            part = context.window(SIZE, places[row], CROPS, number, "one")
            cut = batches.scale(torch.from_numpy(sets["one"].image(index)[part][None].copy()))
            if number:
                cut = F.interpolate(cut, size=CROP, mode="bilinear", antialias=True)
            torch.testing.assert_close(images[row], cut[0])


def test_enlarging_and_reducing_keep_a_picture_where_it_is(sets, monkeypatch):
    """A ramp of brightness: at every size the middle of the crop is as bright."""
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None] * 6, (*SIZE, 3))
    monkeypatch.setattr(sets["one"], "image", lambda index: ramp)
    middles = [drawn(sets["one"], k).images[:, 0, 8, 11:13].mean(1) for k in range(3)]
    for other in middles[1:]:
        # Six levels a pixel: half a pixel is 3 of 127.5.
        assert (other - middles[0]).abs().max() < 3.1 / 127.5


def test_the_centre_is_common_to_the_sets_and_the_flip_is_their_own(sets, monkeypatch):
    places = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(*SIZE)
    coded = np.stack([places % 256, places // 256, places * 0], 2).astype(np.uint8)
    for name in ("one", "target"):
        monkeypatch.setattr(sets[name], "image", lambda index: coded)
    one, target = (drawn(sets[name], 0).images for name in ("one", "target"))
    assert torch.equal(one, target)
    assert not torch.equal(one, drawn(sets["one"], 0, step=3).images)
    flips = [drawn(sets[name], 0, flip=True).images for name in ("one", "target")]
    assert not torch.equal(*flips)


def test_image_and_label_are_cut_mirrored_and_resized_alike(sets):
    """Labels are 8x8 blocks: where the image is painted by its label, it stays so."""
    painted = sets["one"]
    paint = np.stack([painted._labels[0] * 20] * 3, -1)
    painted.image = lambda index: paint[index]
    for number in range(3):
        batch = drawn(painted, number, flip=True, labelled=True)
        said = ((batch.images[:, 0] + 1) * 127.5 / 20).round().long()
        assert batch.truth().dtype == torch.long
        agree = (said == batch.truth()).float().mean()
        assert agree == 1 if number == 0 else agree > 0.8


def test_crop_that_does_not_fit_is_refused_with_its_key(sets):
    with pytest.raises(Refusal, match="training.translator.cag has a crop 25 pixels high.*24x40"):
        drawn(sets["one"], 0, [CROP, (25, 30)])


@pytest.fixture
def build(raw, sets):
    raw = tiny(raw)
    # The last may be wider than the scenes of the miniature, which nobody draws here.
    raw["training"]["translator"] |= {"crop": list(CROP), "batch": 2, "pool": 3, "steps": 10}
    raw["training"]["translator"]["gates"] = {"sad": 0, "ccd": 0}
    raw["training"]["translator"]["cag"] = {"crops": [list(size) for size in FURTHER]}
    params = config.resolve(raw)

    def build(count=2, settings=None, cag=True, **switches):
        training.begin(0, 1)
        sources = {name: sets[name] for name in ("one", "two", "three")[:count]}
        run = schema.Translator(sources=list(sources), target="target", cag=cag, **switches)
        made = params.training.translator.model_copy(update=settings or {})
        more = {}
        if run.semantic != "none":
            net = params.networks.segmenter.model_copy(update={"dropout": 0.0})
            more["judges"] = {name: segmentation.build(net) for name in sources}
            more["task"] = segmentation.build(net)
        return Translator(
            run, made, params.networks, sources, sets["target"], steps=10, seed=0, **more
        )

    return build


def by_the_formulas(method, step):
    """Gradients of one step of MADAN+'s pixel level, a term, a crop size and a call at a time."""
    w, names = method.settings.weights, list(method.sources)
    g, gt, d, dt, da = method.G, method.GT, method.D, method.DT, method.DA
    real, fake = (lambda out: (out - 1).pow(2).mean()), (lambda out: out.pow(2).mean())
    view, made = batches.imagenet, []
    total = 0
    for k in range(len(method.crops)):
        found = method._draw(step, k)
        x, x_t = {i: found[i].images for i in names}, found[""].images
        adapted, back = {i: g(i)(x[i]) for i in names}, {i: gt(i)(x_t) for i in names}
        for i in names:
            total += w.gan_target * real(dt(i)(adapted[i])) + w.gan_source * real(d(i)(back[i]))
            total += w.cycle * (gt(i)(adapted[i]) - x[i]).abs().mean()
            total += w.cycle * (g(i)(back[i]) - x_t).abs().mean()
            now = method.task.eval()(view(adapted[i])).log_softmax(1)
            then = method.judges[i](view(x[i])).log_softmax(1)
            total += w.semantic * (now.exp() * (now - then)).sum(1).mean()
            for j in names if k == 0 else ():
                if i != j:
                    total += w.sad * real(da(i)(adapted[j])) / (len(names) - 1)
                    total += w.ccd * real(d(i)(gt(i)(adapted[j]))) / (len(names) - 1)
        made.append((x, x_t, adapted, back))
    total.backward()
    gradients = {n: [p.grad for p in net.parameters()] for n, net in method.generators.items()}
    for net in method.discriminators.values():
        net.zero_grad()
    total = 0
    for k, (x, x_t, adapted, back) in enumerate(made):
        shown = {i: adapted[i].detach() for i in names}
        for i in names:
            others = [j for j in names if j != i]
            fakes = [back[i].detach()]
            if k == 0:
                fakes += [gt(i)(adapted[j]).detach() for j in others]
                rivals = sum(fake(da(i)(shown[j])) for j in others) / len(others)
                total += (real(da(i)(shown[i])) + rivals) / 2
            total += (real(d(i)(x[i])) + sum(fake(d(i)(f)) for f in fakes) / len(fakes)) / 2
            total += (real(dt(i)(x_t)) + fake(dt(i)(shown[i]))) / 2 / len(names)
    total.backward()
    return gradients | {
        n: [p.grad for p in net.parameters()] for n, net in method.discriminators.items()
    }


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_are_those_of_the_sum_over_crop_sizes(build, count):
    names = ("one", "two", "three")[:count]
    switches = dsc(names, update_every=0) | {"sad": True, "ccd": True}
    ours, theirs = (exact(build(count, settings={"pool": 0}, **switches)) for _ in range(2))
    for optimizer in ours.optimizers.values():
        optimizer.step = lambda: None
    ours.update(0)
    expected = by_the_formulas(theirs, 0)
    assert len(ours.crops) == 3
    for name, reference in expected.items():
        found = torch.cat([p.grad.flatten() for p in ours.networks()[name].parameters()])
        reference = torch.cat([gradient.flatten() for gradient in reference])
        assert (found - reference).norm() < 1e-12 * reference.norm(), name


def test_figures_are_sums_over_the_crop_sizes(build):
    method = build(count=1, settings={"pool": 0})
    for optimizer in method.optimizers.values():
        optimizer.step = lambda: None
    whole = method.update(0)
    parts = []
    for k in range(3):
        scale = method._scale(method._draw(0, k), [], [])
        made, figures = method._update_generators([scale])
        parts.append(figures | method._update_discriminators([scale], made))
    for name, value in whole.items():
        assert value == pytest.approx(sum(part[name].item() for part in parts), rel=1e-5), name


def test_a_term_outside_cag_sees_the_first_crop_size_alone(build):
    switches = dsc() | {"sad": True, "ccd": True}
    plain, method = (build(cag=cag, settings={"pool": 0}, **switches) for cag in (False, True))
    plain._draw = method._draw
    found, alone = method.update(0), plain.update(0)
    for name in alone:
        same = name.split(".")[0] in ("sad", "ccd", "d_sad", "task")
        assert (found[name] == pytest.approx(alone[name], rel=1e-4)) == same, name


def test_a_step_with_cag_moves_every_network_and_each_half_its_own(build):
    method = build(sad=True, ccd=True, **dsc())
    scales = [method._scale(method._draw(0, k), [], []) for k in range(3)]
    pairs = method._pairs(0)
    scales[0] = scales[0]._replace(sad=pairs, ccd=pairs)
    before = weights(method.networks())
    made, _ = method._update_generators(scales)
    assert moved(before, method.networks()) == set(method.generators)
    before = weights(method.networks())
    method._update_discriminators(scales, made)
    assert moved(before, method.networks()) == set(method.discriminators)


def test_every_crop_size_has_its_own_history_of_fakes(build):
    method = build(count=1)
    assert {name for name in method.pools if "T_" in name} == {
        "pool_T_one", "pool_T_one@1", "pool_T_one@2",
    }  # fmt: skip
    method.update(0)
    assert {int(pool.stored) for pool in method.pools.values()} == {2}
    assert not torch.equal(method.pools["pool_one"].images, method.pools["pool_one@1"].images)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_gradients_and_the_figures_of_the_whole(build, parts):
    found = []
    for accumulate in (1, parts):
        settings = {"accumulate": accumulate, "batch": 3}
        method = exact(build(sad=True, ccd=True, settings=settings, **dsc()))
        figures = method.update(0)
        gradients = [p.grad.flatten() for m in method.networks().values() for p in m.parameters()]
        found.append((figures, torch.cat(gradients)))
    (whole, gradient), (in_parts, summed) = found
    assert in_parts == pytest.approx(whole, rel=1e-9)
    assert (summed - gradient).norm() < 1e-9 * gradient.norm()


def test_a_resumed_run_ends_with_the_same_bits(build):
    whole, half, resumed = (build(sad=True, ccd=True, **dsc()) for _ in range(3))

    def run(method, steps):
        for step in steps:
            torch.manual_seed(step)
            method.update(step)

    run(whole, range(4))
    run(half, range(2))
    for name, module in half.modules.items():
        resumed.modules[name].load_state_dict(copy.deepcopy(module.state_dict()))
    for name, optimizer in half.optimizers.items():
        resumed.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, range(2, 4))
    assert moved(weights(whole.modules), resumed.modules) == set()

"""GPUs: no silent CPU, the same bits, what a run records; without one, CUDA is pretended."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import tiny
from test_graph import make
from test_training import Walk
from torch.utils._python_dispatch import TorchDispatchMode

from madan import config
from madan.engine import gpu, training
from madan.errors import Refusal
from madan.labels import IGNORE
from madan.methods import losses
from madan.models import checkpoints
from madan.pipeline import settings
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.jobs import training_run
from madan.pipeline.publishing import Job

CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
# Operations that have no deterministic CUDA kernel in torch 2.14: their kernels raise under
# torch.use_deterministic_algorithms (the names stand in the errors of libtorch_cuda.so). Of
# padding by replication torch.nn.functional.pad takes another way there by itself.
UNORDERED = {
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward", "_upsample_bilinear2d_aa_backward", "reflection_pad1d_backward",
    "grid_sampler_2d_backward", "bincount", "histc", "put_",
    "kthvalue", "cumsum", "scatter_add", "scatter_add_", "index_add", "max_unpool2d", "median",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "MADAN_GPU_SHARE", "MADAN_GPUS",
                 "MADAN_ALLOW_CPU"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def nvidia_smi(tmp_path, monkeypatch, driver):
    """A stand-in for the command of a machine with one GPU and that driver."""
    command = tmp_path / "bin/nvidia-smi"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\ncase $1 in -L) echo "GPU 0: A (UUID: a)";; *) echo {driver};; esac\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_a_gpu_whose_driver_is_too_old_is_refused_by_its_version(no_cuda, tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "535.104.05")
    with pytest.raises(Refusal) as caught:
        gpu.require_cuda(environment={})
    assert "driver is 535.104.05" in str(caught.value)
    assert "CUDA 13.0 needs driver 580 or newer" in str(caught.value)
    assert "MADAN_ALLOW_CPU=1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_that_is_new_enough_is_refused_with_what_cuda_reports(
    no_cuda, tmp_path, monkeypatch
):
    def init():
        raise RuntimeError("CUDA driver initialization failed, you might not have a GPU.\nMore")

    nvidia_smi(tmp_path, monkeypatch, "590.1")
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(Refusal, match=r"initialization failed.*driver 590\.1.*CUDA 13\.0"):
        gpu.require_cuda(environment={})


def test_torch_without_cuda_is_named(no_cuda, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Refusal, match="is built without CUDA"):
        gpu.require_cuda(environment={"CUDA_VISIBLE_DEVICES": "0"})


@pytest.mark.parametrize("where", [{"MADAN_GPUS": "1"}, {"CUDA_VISIBLE_DEVICES": "3"}])
def test_a_gpu_that_a_lease_would_give_is_refused(no_cuda, where):
    with pytest.raises(Refusal, match="this machine has a GPU"):
        gpu.require_cuda(environment=where)


def test_gpus_that_params_ask_for_and_that_are_not_there_are_refused(no_cuda):
    with pytest.raises(Refusal, match="resources in params.yaml ask for 2 GPUs"):
        gpu.require_cuda(2, {"CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.parametrize(
    ("asked", "where"),
    [(0, {}), (0, {"CUDA_VISIBLE_DEVICES": ""}), (1, {"MADAN_ALLOW_CPU": "1"}),
     (0, {"MADAN_GPUS": "2", "MADAN_ALLOW_CPU": "1"})],
)  # fmt: skip
def test_a_cpu_without_gpus_or_with_leave_is_used(no_cuda, asked, where, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    gpu.require_cuda(asked, where)


def test_zero_is_no_leave(no_cuda):
    with pytest.raises(Refusal):
        gpu.require_cuda(1, {"MADAN_ALLOW_CPU": "0"})


@pytest.fixture
def job(raw, monkeypatch):
    """A job that trains a small method in the place of a run, and changes of params.yaml."""

    def job(address="translators/cyclegan-gta5", **changes):
        params = tiny(raw)
        for key, value in changes.items():
            section = params
            *above, last = key.split("__")
            for name in above:
                section = section[name.replace("_", "-") if name not in section else name]
            section[last] = value
        artefact = parse(address)
        graph = Graph(config.resolve(params))
        for other in graph.inputs(artefact):
            if not graph.certificate(other).exists():
                make(graph, other)
        return Job(graph, artefact)

    return job


def train(made, method=None, precision="fp32"):
    run, method = training_run.start(made, None, 1), method or Walk()
    training_run.train(made, method, run, method.modules, precision)
    return made.folder(made.artefact)


def test_training_that_asks_for_a_gpu_is_refused_without_one_and_makes_nothing(
    no_cuda, job, monkeypatch
):
    made = job(resources__translate__gpus=1)
    with pytest.raises(Refusal, match="ask for 1 GPU, but torch cannot use one"):
        train(made)
    assert not made.folder(made.artefact).exists()
    monkeypatch.setenv("MADAN_ALLOW_CPU", "1")
    assert (train(made) / "weights.safetensors").exists()


def test_weights_of_a_gpu_say_which_and_those_of_a_cpu_say_nothing(job, monkeypatch):
    card = {"name": "A", "driver": "590.1", "cuda": "13.0", "cudnn": "91000"}
    assert "gpu" not in checkpoints.story(train(job()) / "weights.safetensors")
    monkeypatch.setattr(gpu, "describe", lambda: card)
    other = job("translators/cyclegan-synthia")
    assert checkpoints.story(train(other) / "weights.safetensors")["gpu"] == card


def test_a_gpu_is_described_by_name_driver_and_libraries(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "590.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu.describe() == {
        "name": "A", "driver": "590.1", "cuda": "13.0", "cudnn": "91000",
    }  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.describe() == {}


@pytest.fixture
def pretend_cuda(monkeypatch):
    """Have a job believe that it computes on CUDA, up to the first tensor."""
    before = torch.get_deterministic_debug_mode()
    monkeypatch.setattr(training, "device", lambda: torch.device("cuda"))
    yield
    torch.set_deterministic_debug_mode(before)


def test_operations_without_an_order_are_an_error_on_cuda_and_a_warning_on_a_cpu(pretend_cuda):
    training.begin(0, 1)
    assert torch.get_deterministic_debug_mode() == 2
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_on_a_cpu_operations_without_an_order_are_a_warning():
    training.begin(0, 1)
    assert torch.get_deterministic_debug_mode() == 1


def test_cublas_is_told_before_cuda_starts():
    code = "import os, torch; from madan.engine import training; training.begin(0, 1); "
    code += "assert not torch.cuda.is_initialized(); print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    environment = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == ":4096:8\n", done.stderr


def test_a_cublas_setting_that_is_not_deterministic_is_refused():
    with pytest.raises(Refusal, match="CUBLAS_WORKSPACE_CONFIG is :0:0.*unset it"):
        gpu.fix_cublas({"CUBLAS_WORKSPACE_CONFIG": ":0:0"})
    allowed = {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    gpu.fix_cublas(allowed)
    assert allowed == {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}


class Operations(TorchDispatchMode):
    """The names of all operations, and of reductions by nll_loss2d the kind."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "nll_loss2d_forward":
            name += f" reduction {args[3]}"
        self.names.add(name)
        return function(*args, **(kwargs or {}))


def operations(compute):
    """What `compute` does where it is not on a CPU, with tensors without data: no kernel runs."""
    torch.use_deterministic_algorithms(True)
    try:
        with Operations() as seen:
            compute()
    finally:
        torch.use_deterministic_algorithms(False)
    return seen.names


def empty(*shape):
    return torch.empty(*shape, device="meta", requires_grad=True)


def task_loss():
    truth = torch.zeros(2, 8, 8, dtype=torch.long, device="meta")
    total = torch.ones((), device="meta")
    losses.task(empty(2, 19, 8, 8), truth, None, total).backward()


def domain_loss():
    losses.domain(empty(2, 2, 8, 8), True).backward()


@pytest.mark.parametrize("loss", [task_loss, domain_loss])
def test_losses_on_cuda_add_up_in_order(loss):
    names = operations(loss)
    assert "nll_loss2d_forward reduction 0" in names  # none
    assert not {"nll_loss2d_forward reduction 1", "nll_loss2d_forward reduction 2"} & names


@pytest.mark.parametrize("weighted", [True, False])
def test_losses_that_add_up_in_order_have_the_same_gradients_and_nearly_the_same_value(
    weighted, monkeypatch
):
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 19, 9, 11, generator=rng, requires_grad=True)
    logits = torch.randn(2, 2, 5, 7, generator=rng, requires_grad=True)
    truth = torch.randint(19, (2, 9, 11), generator=rng)
    truth[0, :3] = IGNORE
    weights = torch.rand(19, generator=rng) if weighted else None
    found = []
    for ordered in (True, False):
        monkeypatch.setattr(losses, "_adds_up_in_order", lambda _, ordered=ordered: ordered)
        pair = losses.task(scores, truth, weights), losses.domain(logits, True)
        found.append((*pair, *torch.autograd.grad(sum(pair), [scores, logits])))
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(found[0][2:], found[1][2:], strict=True):
        assert torch.equal(one, other)


def networks():
    from madan.models.discriminators import FeatureDiscriminator, PatchGAN, SourceDiscriminators

    params = config.resolve(tiny(_raw()))
    sizes, nets = params.networks, {}
    from madan.models.drn26 import DRN26
    from madan.models.fcn8s import FCN8s
    from madan.models.generator import Generator

    nets["fcn8s"] = lambda: FCN8s(classes=19, **sizes.segmenter.model_dump(exclude={"pretrained"}))
    nets["drn26"] = lambda: DRN26(classes=19, **sizes.drn26.model_dump())
    nets["generator"] = lambda: Generator(**sizes.generator.model_dump())
    nets["patchgan"] = lambda: PatchGAN(**sizes.discriminator.model_dump())
    of_features = sizes.feature_discriminator.model_dump()
    nets["features"] = lambda: FeatureDiscriminator(channels=19, classes=1, **of_features)
    heads = sizes.source_discriminators.model_dump()
    nets["sources"] = lambda: SourceDiscriminators(channels=19, sources=2, **heads)
    return nets


def _raw():
    from conftest import params_yaml

    return params_yaml()


@pytest.mark.parametrize("name", ["fcn8s", "drn26", "generator", "patchgan", "features", "sources"])
def test_no_network_has_an_operation_that_adds_up_in_any_order_on_cuda(name):
    def step():
        net = networks()[name]().to("meta")
        x = empty(2, 19 if name in ("features", "sources") else 3, 32, 64)
        made = net(x)
        made.square().mean().backward()

    seen = operations(step)
    assert any("convolution_backward" in each for each in seen)
    assert sorted(seen & UNORDERED) == []


@pytest.mark.parametrize(
    ("method", "precision", "recorded"),
    [("mdan", "bf16", "bf16"), ("feat", "bf16", "bf16"), ("self-training", "bf16", "bf16"),
     ("adda", "bf16", "fp32"), ("mdan", "fp32", "fp32")],
)  # fmt: skip
def test_an_adaptation_records_the_precision_that_it_was_computed_in(
    raw, method, precision, recorded, monkeypatch
):
    from madan.pipeline.jobs import adapt, inputs

    given = []
    monkeypatch.setattr(training_run, "train", lambda *args, **more: given.append(args[4]))
    monkeypatch.setattr(inputs, "starting_segmenter", lambda *args: None)
    monkeypatch.setattr(inputs, "training_sets", lambda *args, **more: [])
    monkeypatch.setattr(inputs, "image_set", lambda *args: None)
    monkeypatch.setattr(training_run, "start", lambda *args: None)
    params = config.resolve(tiny(raw))
    learning = params.training.segmenter.model_copy(update={"precision": precision})
    net = torch.nn.Linear(1, 1)
    made = type("Made", (), {"task": type("Task", (), {"settings": learning})})()
    monkeypatch.setattr(adapt, "method", lambda *args, **more: made)
    run = next(iter(params.adaptations.values())).model_copy(update={"method": method})
    params.adaptations["x"] = run
    artefact = type("Artefact", (), {"run": "x", "address": "adaptations/x"})()
    monkeypatch.setattr(type(params), "sets", lambda *args: [])
    work = type("Work", (), {"params": params, "artefact": artefact, "graph": None})()
    adapt.adapt(work, {}, {}, {}, {"cityscapes": []})
    assert given == [recorded] and net


def gone(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize(
    ("address", "changes", "words"),
    [
        ("translators/cyclegan-gta5", {},
         ["set translators.cyclegan-gta5.accumulate: 2", "1 image"]),
        ("translators/cyclegan-gta5", {"training__translator__accumulate": 2},
         ["training.translator.crop smaller"]),
        ("segmenters/source-gta5", {}, ["segmenters.source-gta5.accumulate: 2", "enough: 4, 8"]),
        ("segmenters/source-gta5", {"segmenters__source_gta5__accumulate": 4},
         ["segmenters.source-gta5.accumulate: 8"]),
    ],
)  # fmt: skip
def test_too_little_memory_on_a_gpu_is_one_sentence_with_the_setting_that_needs_less(
    job, address, changes, words
):
    method = Walk()
    method.update = gone
    with pytest.raises(Refusal) as caught:
        train(job(address, **changes), method)
    for word in ["needs more memory than the GPU has", "Tried to allocate 2.00 GiB", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["accumulate", "gpus"])
@pytest.mark.parametrize(
    "address", ["segmenters/pooled", "translators/madan", "adaptations/madan-feat"]
)
def test_a_runs_own_accumulate_or_gpus_changes_its_settings_and_no_others(raw, key, address):
    params = tiny(raw)
    kind, name = address.split("/")
    before = config.resolve(params)
    runs = [made for made in Graph(before).everything() if made.kind in settings_of_runs()]
    params[kind].setdefault(name, raw[kind][name])[key] = 2
    after = config.resolve(params)
    changed = {
        made.address for made in runs
        if settings.settings(made, before) != settings.settings(made, after)
    }  # fmt: skip
    assert changed <= {address}
    artefact = parse(address)
    one, other = settings.settings(artefact, before), settings.settings(artefact, after)
    assert len(settings.changes(one, other)) == 1
    assert re.search(r"accumulate was 1, is 2|processes was not there, is 2",
                     settings.changes(one, other)[0])  # fmt: skip


def settings_of_runs():
    return {"segmenters", "translators", "adaptations"}


def test_settings_of_runs_without_own_keys_are_what_they_were(raw):
    made = parse("translators/madan")
    own = settings.settings(made, config.resolve(tiny(raw)))
    assert not {"accumulate", "gpus", "steps"} & set(own["run"])
    assert own["training"]["translator"]["accumulate"] == 1
    assert json.dumps(own)


@pytest.mark.gpu
@CARD
def test_two_runs_on_a_gpu_end_with_the_same_bits():
    """A segmenter's step with all of its losses, twice from the same seed."""

    def once():
        training.begin(0, 1)
        net = networks()["fcn8s"]().cuda()
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
        for _ in range(3):
            scores = net(torch.randn(2, 3, 64, 128, device="cuda"))
            truth = torch.randint(19, (2, 64, 128), device="cuda")
            training.descend(optimizer, losses.task(scores, truth, None))
        return [p.detach().cpu() for p in net.parameters()]

    assert all(map(torch.equal, once(), once()))

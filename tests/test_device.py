"""A fit on a device that is not the host: nothing mixed, nothing waited for needlessly, the same numbers."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, HOST, Generator, HostWaits, OnGpu, PretendedGpu
from torch import Tensor

from neuralrecon.capture import read_capture
from neuralrecon.errors import ConfigError, FitError
from neuralrecon.evaluate.views import evaluate_views
from neuralrecon.extract import MeshConfig, extract_mesh
from neuralrecon.fields import FieldConfig
from neuralrecon.ops import use_backend
from neuralrecon.ops.buffers import give_back, take_zeros
from neuralrecon.scene import Scene, SceneConfig
from neuralrecon.train import Fit, FitConfig, device_of, fit, load_fit, losses, questions, start
from neuralrecon.train.checkpoint import TrainingState
from neuralrecon.train.run import RunConfig, run

fit_module = sys.modules["neuralrecon.train.fit"]  # the function hides it
TINY = FitConfig(
    field=FieldConfig(
        levels=2,
        log2_table_size=10,
        base_resolution=8,
        finest_resolution=32,
        color_levels=2,
        color_log2_table_size=10,
        color_finest_resolution=32,
        hidden=8,
    ),
    steps=6,
    interior_rays=48,
    edge_rays=24,
    depth_rays=64,
    first_levels=1,
    occupancy_resolution=32,
    refine_from=0.3,
    checkpoint_every=4,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are small, and threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "cuda" is the pretended GPU; a fused Adam takes it; the start from the hull is short."""
    torch_optimizer = sys.modules["torch.optim.optimizer"]
    fused = torch_optimizer._get_fused_kernels_supported_devices
    monkeypatch.setattr(torch_optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused(), GPU.type])
    monkeypatch.setattr(fit_module, "device_of", lambda name: GPU if name == "cuda" else HOST)
    monkeypatch.setattr(start, "_STEPS", 2)


@pytest.fixture(scope="module")
def scene(sphere_folder: Path) -> Scene:
    return Scene.from_capture(read_capture(sphere_folder), SceneConfig(hull_resolution=64, hold_out_every=6))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    monkeypatch.setattr(torch, "Generator", Generator)
    with use_backend("torch"), PretendedGpu() as gpu:
        yield gpu


def on_host(scene: Scene, config: FitConfig = TINY, **given: Any) -> Fit:
    with use_backend("torch"):
        return fit(scene, config, seed=3, device="cpu", **given)


def tensors_of(result: Fit) -> dict[str, Tensor]:
    named = {
        **dict(result.model.named_parameters()),
        **dict(result.model.named_buffers()),
        "sdf": result.occupancy.sdf,
        "cells": result.occupancy.cells,
        "origins": result.view_origins,
        "rotations": result.view_rig_from_world,
    }
    return {name: tensor.detach().cpu() for name, tensor in named.items()}


def assert_same(a: Fit, b: Fit) -> None:
    ours, theirs = tensors_of(a), tensors_of(b)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_pretence_finds_what_a_gpu_refuses(pretended: PretendedGpu) -> None:
    """Canaries."""
    there = torch.ones(3, device=GPU)
    assert isinstance(there, OnGpu)
    assert isinstance(there.cpu() + torch.ones(3), Tensor)
    assert not pretended.waits["here"]
    with pytest.raises(AssertionError, match=r"\(3,\)\] on the host"):
        torch.add(there, torch.ones(3))
    with pytest.raises(AssertionError, match="asked of cpu"):
        torch.zeros_like(there, device=HOST)
    with pytest.raises(AssertionError, match="a generator of cpu asked for meta"):
        torch.rand(3, generator=torch.Generator(), device=GPU)
    before = pretended.waits.total()
    assert float(there.sum()) == 3.0
    assert pretended.waits.total() == before + 1


def test_a_fit_there_is_the_fit_here(scene: Scene, pretended: PretendedGpu, tmp_path: Path) -> None:
    """All that is random is drawn alike, so every number, and every line of scalars.csv, is the same, bit for bit."""
    here = on_host(scene, folder=tmp_path / "here")
    assert pretended.waits.total() == 0
    there = fit(scene, TINY, seed=3, device="cuda", folder=tmp_path / "there")
    assert all(isinstance(p, OnGpu) for p in there.model.parameters())
    assert there.device == GPU
    assert_same(here, there)
    here_csv, there_csv = ((tmp_path / name / "scalars.csv").read_bytes() for name in ("here", "there"))
    assert here_csv == there_csv
    assert_same(load_fit(tmp_path / "there"), here)


@pytest.mark.parametrize(("stopped_on", "resumed_on"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_fit_stopped_there_goes_on_here(
    scene: Scene, pretended: PretendedGpu, tmp_path: Path, stopped_on: str, resumed_on: str
) -> None:
    class Stopped(Exception):
        pass

    def stop(step: int, terms: dict[str, float]) -> None:
        assert all(math.isfinite(value) for value in terms.values())
        if step == 4:
            raise Stopped

    whole = on_host(scene)
    with pytest.raises(Stopped):
        fit(scene, TINY, seed=3, device=stopped_on, folder=tmp_path, on_step=stop)
    assert load_fit(tmp_path).step == 4
    assert_same(fit(scene, TINY, seed=3, device=resumed_on, folder=tmp_path), whole)


def test_a_generator_of_another_kind_starts_anew() -> None:
    """CUDA's generators have 16 bytes of state, the CPU's 5056."""
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    kept = TrainingState(moments={}, generator=torch.zeros(16, dtype=torch.uint8), seed=2)
    fit_module._go_on_drawing(generator, kept, 100)
    first = torch.rand(3, generator=generator)
    fit_module._go_on_drawing(generator, kept, 100)
    assert torch.equal(torch.rand(3, generator=generator), first)
    fit_module._go_on_drawing(generator, replace(kept, generator=before), 100)
    assert torch.equal(generator.get_state(), before)


def test_mesh_colors_and_views_of_a_fit_there(scene: Scene, pretended: PretendedGpu) -> None:
    here = on_host(scene)
    there = here.to(GPU)
    assert here.device == HOST
    assert there.to(GPU) is there
    assert all(isinstance(p, OnGpu) for p in there.model.parameters())
    assert_same(there.to(HOST), here)
    meshes = [extract_mesh(x, MeshConfig(voxel_mm=4.0)) for x in (here, there)]
    np.testing.assert_array_equal(meshes[0].vertices, meshes[1].vertices)
    np.testing.assert_array_equal(meshes[0].visual.vertex_colors, meshes[1].visual.vertex_colors)  # pyright: ignore
    short = replace(scene, held_out=scene.held_out[:1])
    assert evaluate_views(here, short) == evaluate_views(there, short)


def waits_of_steps(waits: Counter[str], but: tuple[str, ...]) -> Counter[str]:
    return Counter({place: n for place, n in waits.items() if not place.startswith(but)})


def test_what_a_step_waits_for(scene: Scene, pretended: PretendedGpu) -> None:
    """Beside what the torch definitions of the ops wait for: once, for the number of samples that can be seen."""
    fit(scene, replace(TINY, steps=3, w_patches=0.0), seed=3, device="cuda")
    first = Counter(pretended.waits)
    pretended.waits.clear()
    fit(scene, replace(TINY, steps=7, w_patches=0.0), seed=3, device="cuda")
    more = pretended.waits - first
    assert waits_of_steps(more, ("_torch.py", "__init__.py:where")) == {"rendering.py:render aten.nonzero.default": 4}


def test_what_patches_wait_for(scene: Scene, pretended: PretendedGpu) -> None:
    """How many samples the chosen rays have, where they cross the surface, and which crossing is a ray's first."""
    scene = replace(scene, readings=None, start=scene.hull)  # beside depth none are compared
    fit(scene, replace(TINY, steps=3, patches_from=0.4), seed=3, device="cuda")
    first = Counter(pretended.waits)
    pretended.waits.clear()
    fit(scene, replace(TINY, steps=7, patches_from=0.4), seed=3, device="cuda")
    waits = {place: n for place, n in (pretended.waits - first).items() if place.startswith("patches.py")}
    whats = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.index.Tensor")
    assert waits == {f"patches.py:find {what}": 3 for what in whats}  # steps 3 to 6 of seven, step 2 of three


def test_what_a_step_waits_for_with_triton(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above and once for the number of samples on the rays. All else is launched and left alone."""
    pytest.importorskip("triton")
    for module, name in ((start, "_POINTS"), (questions, "_POINTS_BELOW"), (questions, "_DEEP_POINTS")):
        monkeypatch.setattr(module, name, 16)  # the interpreter is slow
    small = replace(
        TINY, interior_rays=6, edge_rays=2, depth_rays=8, occupancy_resolution=16, refine_from=0.0, w_patches=0.0
    )
    waits = []
    for steps in (1, 2):
        # the host's own fit reads its terms each step, which is no wait here but would be one there
        with use_backend("triton"), HostWaits() as host:
            fit(scene, replace(small, steps=steps), seed=3, device="cpu")
        waits.append(Counter(host.waits))
    assert waits[1] - waits[0] == {
        "rendering.py:render aten.nonzero.default": 1,
        "_triton.py:march_triton aten._local_scalar_dense.default": 1,
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("checkpoint_every", [4, 1000])
def test_a_loss_that_is_not_finite_is_told_before_it_is_kept(
    scene: Scene,
    pretended: PretendedGpu,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    device: str,
    checkpoint_every: int,
) -> None:
    """On the GPU steps later, by which time nothing has come of it but a model that is thrown away."""
    monkeypatch.setattr(losses, "bending_loss", nan_from_call(5))  # two calls a step
    config = replace(TINY, checkpoint_every=checkpoint_every)
    with pytest.raises(FitError, match=r"step 2: the loss is no longer finite.*bending nan"):
        fit(scene, config, seed=3, device=device, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def nan_from_call(first: int) -> Callable[[Tensor, Tensor], Tensor]:
    calls = []

    def loss(gradients: Tensor, beside: Tensor) -> Tensor:
        calls.append(1)
        return (gradients - beside).square().sum() * (math.nan if len(calls) >= first else 1.0)

    return loss


def test_zeros_are_kept_for_their_device(pretended: PretendedGpu) -> None:
    shape = (7, 3)
    there, here = take_zeros(shape, GPU), take_zeros(shape)
    assert (there.device, here.device) == (GPU, HOST)
    give_back(there)
    assert take_zeros(shape).device == HOST
    assert take_zeros(shape, GPU) is there


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == HOST
    with pytest.raises(ConfigError, match="device=gpu: wanted auto, cpu, cuda"):
        device_of("gpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=r"device=cuda: torch .* is built without CUDA; .*device=cpu"):
        device_of("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(ConfigError, match=r"device=cuda: torch sees no GPU; .*CUDA_VISIBLE_DEVICES, or set device=cpu"):
        device_of("cuda")
    with pytest.raises(ConfigError, match="device=cuda"):
        run(RunConfig(device="cuda", capture=tmp_path, out=tmp_path / "out"))  # pyright: ignore
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto").type == device_of("cuda").type == "cuda"
    assert device_of("cpu") == HOST

"""What needs a CUDA device; run with ``pytest -m gpu``."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import Federation, tiny

from client_app.personalisation import PersonalModels
from client_app.training import Start, train_locally
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def train_on(device: str, precision: str, **changes: Any) -> tuple[float, torch.Tensor]:
    config = tiny(train__precision=precision, train__local_steps=8, **changes)
    model = build_model(config)
    table = TensorTable.of(model)
    weights = table.read(model)
    momentum = 1e-3 * torch.randn(table.numel, generator=torch.Generator().manual_seed(1)) * bool(changes)
    own = PersonalModels(weights + momentum) if changes else PersonalModels()
    radii = torch.full((len(table),), 0.05 * bool(changes))
    start = Start(
        1 + bool(changes), Replica(1, weights, momentum), radii, seed=0, steps_done=8 * bool(changes), personal=own
    )
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(32, 3, 16, 16, generator=generator) for _ in range(8)]
    outcome = train_locally(config, model.to(device), table, build_recipe(config), iter(data), start)
    return outcome.ssl_loss, outcome.delta


def test_fp32_round_on_cuda_agrees_with_the_cpu() -> None:
    (cpu_loss, cpu_delta), (gpu_loss, gpu_delta) = train_on("cpu", "fp32"), train_on("cuda", "fp32")
    assert gpu_loss == pytest.approx(cpu_loss, rel=1e-2)
    assert float(torch.nn.functional.cosine_similarity(cpu_delta, gpu_delta, dim=0)) > 0.9


@pytest.mark.parametrize("kind", ["shift", "sam", "mixed"])
@pytest.mark.parametrize("optimiser", ["sgd", "muon"])
def test_every_part_of_a_step_runs_on_cuda_as_on_the_cpu(kind: str, optimiser: str) -> None:
    changes = {"train__recipe": "byol", "train__optimiser": optimiser, "train__proximal": 0.1}
    changes |= {"train__global_momentum": 0.5, "personalisation__kind": "average"}
    changes |= {"guidance__kind": kind, "guidance__scale": "absolute"}
    (cpu_loss, cpu_delta), (gpu_loss, gpu_delta) = (train_on(device, "fp32", **changes) for device in ("cpu", "cuda"))
    assert gpu_loss == pytest.approx(cpu_loss, rel=1e-2)
    assert float(torch.nn.functional.cosine_similarity(cpu_delta, gpu_delta, dim=0)) > 0.9


def test_bf16_round_on_cuda_is_finite_and_near_fp32() -> None:
    loss, delta = train_on("cuda", "bf16")
    assert math.isfinite(loss)
    assert torch.isfinite(delta).all()
    assert loss == pytest.approx(train_on("cuda", "fp32")[0], rel=0.1)


def test_federation_trains_on_cuda(federation: Callable[..., Federation]) -> None:
    fed = federation(changes={"run.rounds": 2})
    fed.run()
    assert all(len(line["accepted"]) == 3 for line in fed.lines())


def test_two_client_processes_share_one_gpu() -> None:
    here = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; "
    code += "import runpy; print(runpy.run_path(sys.argv[1])['train_on']('cuda', 'bf16')[0])"
    processes = [subprocess.Popen([sys.executable, "-c", code, __file__], stdout=subprocess.PIPE) for _ in range(2)]
    losses = [float(process.communicate(timeout=300)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)

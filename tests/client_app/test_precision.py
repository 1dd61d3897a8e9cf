"""What ``train.precision`` promises of convolutions on CUDA; the flags of torch can be seen without
it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from federation import tiny
from torch import nn

from client_app.training import Start, train_locally
from fedsense_core.device import full_float32
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.replica import Replica
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable


@pytest.fixture(autouse=True)
def tf32_allowed() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True), ("auto", True)])
def test_fp32_training_forbids_tf32_and_the_others_leave_it(precision: str, allowed: bool) -> None:
    config = tiny(train__precision=precision)
    model = build_model(config)
    table = TensorTable.of(model)
    seen = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    weights = table.read(model)
    start = Start(1, Replica(1, weights, torch.zeros_like(weights)), torch.zeros(len(table)), seed=0)
    train_locally(config, model, table, build_recipe(config), iter(torch.randn(2, 4, 3, 16, 16)), start)
    assert set(seen) == {allowed}
    assert torch.backends.cudnn.allow_tf32


def test_the_flag_of_the_caller_is_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), full_float32():
        1 / int(torch.backends.cudnn.allow_tf32)  # which is False here
    assert torch.backends.cudnn.allow_tf32


def test_a_caller_who_forbids_tf32_keeps_it_forbidden() -> None:
    torch.backends.cudnn.allow_tf32 = False
    with full_float32(wanted=False):
        assert not torch.backends.cudnn.allow_tf32


@pytest.mark.gpu
def test_convolutions_on_cuda_are_of_float32_proper() -> None:
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(8, 64, 32, 32, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    exact = nn.functional.conv2d(image.double(), kernel.double())
    with full_float32():
        found = nn.functional.conv2d(image.cuda(), kernel.cuda()).cpu()
    assert float((found - exact).norm() / exact.norm()) < 1e-5  # TF32 keeps 10 bits: about 3e-4

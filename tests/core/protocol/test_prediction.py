"""What both ends expect of an update: estimated once, computed twice, in equal bits."""

from __future__ import annotations

import pytest
import torch

from fedsense_core.protocol.prediction import coefficients, momentum_weight, prediction
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable

TABLE = TensorTable.from_shapes({"along": (30, 20), "half": (30, 20), "against": (9,), "beyond": (4,), "still": (5,)})


def momentum_and_update() -> tuple[torch.Tensor, torch.Tensor]:
    momentum = torch.randn(TABLE.numel, generator=torch.Generator().manual_seed(0))
    update = momentum.clone()
    parts, base = TABLE.unflatten(update), TABLE.unflatten(momentum)
    parts["half"].mul_(0.5)
    parts["against"].neg_()
    parts["beyond"].mul_(7)
    base["still"].zero_()
    return momentum, update


def test_coefficient_is_the_share_of_the_momentum_in_the_update_within_zero_and_one() -> None:
    momentum, update = momentum_and_update()
    gammas = coefficients(update, momentum, 1.0, TABLE)
    assert gammas.dtype == torch.float32
    assert gammas.tolist() == pytest.approx([1.0, 0.5, 0.0, 1.0, 0.0])


def test_repeated_update_is_predicted_whole_however_young_the_momentum_is() -> None:
    """m̂ starts from zero: without its bias taken out, round 3 could predict a tenth of such an
    update."""
    _, update = momentum_and_update()
    replica = Replica.first(torch.zeros(TABLE.numel))
    for _ in range(4):
        replica = replica.advance(update, 0.9)
        weight = momentum_weight(0.9, replica.version)
        shares = coefficients(update, replica.momentum, weight, TABLE)
        predicted = prediction(shares / weight, replica.momentum, TABLE)
        assert predicted is not None
        assert torch.allclose(predicted, update, rtol=1e-5)


def test_part_of_the_update_across_the_momentum_does_not_count() -> None:
    momentum, update = momentum_and_update()
    across = torch.randn(TABLE.numel, generator=torch.Generator().manual_seed(1))
    for (_, a), (_, m) in zip(TABLE.views(across), TABLE.views(momentum), strict=True):
        a.sub_(m * (a @ m) / max(float(m @ m), 1e-9))
    expected = coefficients(update, momentum, 1.0, TABLE)
    assert torch.allclose(coefficients(update + across, momentum, 1.0, TABLE), expected, atol=1e-5)


def test_prediction_is_each_tensors_share_of_the_momentum_in_exact_products() -> None:
    momentum, _ = momentum_and_update()
    gammas = torch.tensor([1.0, 0.1, 0.0, 0.7, 1.0])
    predicted = prediction(gammas, momentum, TABLE)
    assert predicted is not None
    for gamma, (_, p), (_, m) in zip(gammas, TABLE.views(predicted), TABLE.views(momentum), strict=True):
        assert torch.equal(p, gamma * m)


def test_nothing_is_predicted_while_every_coefficient_is_zero() -> None:
    momentum, _ = momentum_and_update()
    assert prediction(torch.zeros(5), momentum, TABLE) is None


@pytest.mark.parametrize("gammas", [torch.ones(4), torch.tensor([1.0, 1.0, 1.0, 1.0, float("nan")])])
def test_coefficients_that_do_not_fit_the_model_are_refused(gammas: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected 5 finite numbers"):
        prediction(gammas, torch.ones(TABLE.numel), TABLE)

"""CKA with the unbiased estimator: blind to basis and scale, and near 0 for what has nothing in
common."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from fedsense_core.tools.analysis.cka import cka_matrix, gram, unbiased_hsic


def features(images: int, width: int, seed: int) -> Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_estimator_is_the_mean_over_all_quadruples_of_different_images() -> None:
    # The U-statistic of which the closed form is a rearrangement (Song et al. 2012).
    n = 6
    k, l = gram(features(n, 3, 0)), gram(features(n, 2, 1))  # noqa: E741
    terms = [k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q] for i, j, q, r in permutations(range(n), 4)]
    assert unbiased_hsic(k, l) == pytest.approx(float(torch.stack(terms).mean()))


def test_rotation_scale_and_offset_of_features_change_nothing() -> None:
    x = features(30, 5, 0)
    rotation, _ = torch.linalg.qr(features(5, 5, 1))
    matrix = cka_matrix([gram(x), gram(3 * x @ rotation + 7)])
    assert matrix[0][1] == pytest.approx(1)


def test_unrelated_encoders_are_near_zero_even_with_more_features_than_images() -> None:
    matrix = cka_matrix([gram(features(100, 1000, 0)), gram(features(100, 1000, 1))])
    assert abs(matrix[0][1]) < 0.1  # the usual estimator gives 0.9 here


def test_the_matrix_is_symmetric_with_ones_on_its_diagonal() -> None:
    x = features(40, 4, 0)
    matrix = torch.tensor(cka_matrix([gram(x + s * features(40, 4, 9)) for s in (0.0, 0.5, 2.0)]))
    assert torch.equal(matrix, matrix.T)
    assert torch.equal(matrix.diagonal(), torch.ones(3))
    assert matrix[0, 1] > matrix[0, 2] > 0


def test_an_encoder_that_sees_nothing_is_like_no_other() -> None:
    assert cka_matrix([gram(features(9, 3, 0)), gram(torch.ones(9, 3))])[0][1] == 0


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="4 images or more, not 3"):
        cka_matrix([gram(features(3, 2, 0))])

"""How alike two encoders see the same images, whatever the basis of their features: linear CKA.

Centred kernel alignment (arXiv 1905.00414) with the unbiased estimator of HSIC in place of the
usual one, as in arXiv 2010.13166 (section 3), because the usual one tends to 1 when there are fewer
images than features. Shapes: n images, D features, m encoders.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

FEWEST_IMAGES = 4
"""The unbiased estimator divides by n - 3."""


def gram(features_nD: Tensor) -> Tensor:
    """Return the linear kernel K = X Xᵀ (n, n) in float64 with a diagonal of 0, as the unbiased
    estimator needs it.

    Features are centred before: it changes nothing but rounding.
    """
    x_nD = features_nD.double()
    x_nD = x_nD - x_nD.mean(dim=0)
    return (x_nD @ x_nD.T).fill_diagonal_(0.0)


def unbiased_hsic(k_nn: Tensor, l_nn: Tensor) -> float:
    """Return HSIC_1 of two kernels with zero diagonals (Song et al. 2012; equation 3 of arXiv
    2010.13166).

    [tr(KL) + 1ᵀK1 1ᵀL1 / ((n-1)(n-2)) - 2/(n-2) 1ᵀKL1] / (n(n-3)); may be negative. Raises
    ValueError below 4 images.
    """
    n = len(k_nn)
    if n < FEWEST_IMAGES:
        raise ValueError(f"the unbiased estimator needs {FEWEST_IMAGES} images or more, not {n}")
    rows_k, rows_l = k_nn.sum(dim=0), l_nn.sum(dim=0)
    total = (k_nn * l_nn).sum() + rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows_k @ rows_l)
    return float(total / (n * (n - 3)))


def cka_matrix(grams: Sequence[Tensor]) -> list[list[float]]:
    """Return CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of every pair (m, m): 1 alike, 0
    unrelated.

    0 where an encoder gives every image the same features. Slightly below 0 by chance where two are
    unrelated.
    """
    own = [unbiased_hsic(k, k) for k in grams]
    matrix = [[1.0] * len(grams) for _ in grams]
    for i, k in enumerate(grams):
        for j in range(i):
            size = own[i] * own[j]
            value = unbiased_hsic(k, grams[j]) / size**0.5 if own[i] > 0 and size > 0 else 0.0
            matrix[i][j] = matrix[j][i] = value
    return matrix

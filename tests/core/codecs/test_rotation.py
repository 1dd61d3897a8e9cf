from __future__ import annotations

import numpy as np
import torch

from fedsense_core.codecs.rotation import BLOCK, hadamard_, signs


def test_identity_becomes_the_sylvester_matrix() -> None:
    rows, columns = np.indices((BLOCK, BLOCK))
    parity = np.array([bin(n).count("1") % 2 for n in range(BLOCK)])[rows & columns]
    result = hadamard_(torch.eye(BLOCK), torch.empty(BLOCK, BLOCK))
    assert torch.equal(result, torch.from_numpy((1 - 2 * parity).astype(np.float32)))


def test_applied_twice_it_gives_back_integers_exactly() -> None:
    rows = torch.randint(-8, 9, (5, BLOCK), generator=torch.Generator().manual_seed(0)).float()
    spare = torch.empty_like(rows)
    twice = hadamard_(hadamard_(rows.clone(), spare), spare)
    assert torch.equal(twice, rows * BLOCK)


def test_it_works_in_place_and_on_no_rows_at_all() -> None:
    rows = torch.ones(3, BLOCK)
    assert hadamard_(rows, torch.empty_like(rows)).data_ptr() == rows.data_ptr()
    assert hadamard_(torch.empty(0, BLOCK), torch.empty(0, BLOCK)).shape == (0, BLOCK)


def test_signs_depend_on_seed_and_tensor_and_are_balanced() -> None:
    drawn = torch.stack([signs(seed, tensor) for seed in range(20) for tensor in range(20)])
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    correlation = drawn @ drawn.T / BLOCK - torch.eye(400)
    assert correlation.abs().max() < 6 / BLOCK**0.5
    assert abs(drawn.mean()) < 5 / (400 * BLOCK) ** 0.5


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    assert torch.equal(signs(-1, 0), signs(2**64 - 1, 0))
    assert torch.equal(signs(2**64 + 5, 3), signs(5, 3))


def test_signs_never_change() -> None:
    assert np.packbits(signs(1, 2).numpy()[:64] < 0, bitorder="little").tobytes().hex() == "19460c78c5d21ebe"

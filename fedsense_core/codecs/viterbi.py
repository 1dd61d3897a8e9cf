"""The search for the best path through a bit-shift trellis, in plain torch, many blocks at a time.

A state is the last L bits of a code string; a step of k bits shifts them by k and appends a code c,
and each state stands for one value. The path whose values are nearest to a sequence is found by
dynamic programming (Viterbi 1967). The trellis is circular: the state after the last code is the
state before the first, so that no block spends bits on a start (tail biting, as in QTIP, arXiv
2406.11235).

Shapes: K blocks, here the last axis, T steps, S = 2^L states, C = 2^k codes, H = S / C. State s has
the predecessors p H + (s >> k), p < C.
"""

from __future__ import annotations

import torch
from torch import Tensor

TAIL = 64
"""Steps searched on each side of a block's border to find the state in which the circle closes."""
MAX_CHOICES = 32 * 2**20
"""Bytes of choices that may be held at once: bounds the blocks that are searched together on a
CPU."""


def best_states(z_KT: Tensor, branches_CH: Tensor) -> Tensor:
    """Return the states (K, T), int32, of the best circular path for each row of ``z_KT`` (K, T)
    float32.

    The circle closes in the state that is best for the last and first ``TAIL`` numbers alone; the
    path is the best of those through it. Ties go to the smaller predecessor.
    """
    z_TK = z_KT.T.contiguous()  # blocks last: every operation then runs along them
    costs_SK = z_TK.new_zeros(branches_CH.numel(), z_TK.shape[1])
    choices_THK = forward(torch.cat([z_TK[-TAIL:], z_TK[:TAIL]]), branches_CH, costs_SK)
    border_K = backward(first_least(costs_SK), choices_THK, branches_CH)[TAIL - 1]
    costs_SK.fill_(torch.inf).scatter_(0, border_K[None].long(), 0.0)
    return backward(border_K, forward(z_TK, branches_CH, costs_SK), branches_CH).T


def forward(z_TK: Tensor, branches_CH: Tensor, costs_SK: Tensor) -> Tensor:
    """Run the recursion from ``costs_SK`` (S, K), which it overwrites; return the choices p (T, H,
    K), uint8."""
    fan, half = branches_CH.shape
    (steps, blocks), values_HC1 = z_TK.shape, branches_CH.T[:, :, None].contiguous()
    choices_THK = torch.empty(steps, half, blocks, dtype=torch.uint8, device=z_TK.device)
    rivals_CHK, errors_HCK = costs_SK.view(fan, half, blocks), z_TK.new_empty(half, fan, blocks)
    best_HK, better_HK = z_TK.new_empty(half, blocks), torch.empty(half, blocks, dtype=torch.bool, device=z_TK.device)
    for z_K, choice_HK in zip(z_TK, choices_THK, strict=True):
        torch.lt(rivals_CHK[1], rivals_CHK[0], out=choice_HK.view(torch.bool))
        torch.minimum(rivals_CHK[0], rivals_CHK[1], out=best_HK)
        for p in range(2, fan):
            torch.lt(rivals_CHK[p], best_HK, out=better_HK)
            choice_HK.masked_fill_(better_HK, p)
            torch.minimum(best_HK, rivals_CHK[p], out=best_HK)
        torch.sub(values_HC1, z_K, out=errors_HCK)
        torch.add(errors_HCK.mul_(errors_HCK), best_HK[:, None], out=costs_SK.view(half, fan, blocks))
    return choices_THK


def backward(last_K: Tensor, choices_THK: Tensor, branches_CH: Tensor) -> Tensor:
    """Return the states (T, K), int32, of the paths that end in ``last_K`` (K,)."""
    fan, half = branches_CH.shape
    bits = fan.bit_length() - 1
    states_TK = torch.empty(len(choices_THK), len(last_K), dtype=torch.int32, device=last_K.device)
    state_K = last_K.long()
    for t in range(len(choices_THK) - 1, -1, -1):
        states_TK[t] = state_K
        rest_K = state_K >> bits
        state_K = rest_K + choices_THK[t].gather(0, rest_K[None])[0].long() * half
    return states_TK


def first_least(costs_SK: Tensor) -> Tensor:
    """Return the index of the first least cost of each column (K,): torch's own choice among equals
    is not fixed."""
    index_S1 = torch.arange(len(costs_SK), device=costs_SK.device)[:, None]
    return torch.where(costs_SK == costs_SK.amin(0), index_S1, len(costs_SK)).amin(0)

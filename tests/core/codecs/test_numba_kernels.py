"""The numba kernels and plain torch are one codec: every payload and every vector has the same
bits."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.kernels import launch
from fedsense_core.codecs.trellis import Trellis
from fedsense_core.tensors import TensorTable

pytestmark = pytest.mark.skipif(not launch.is_available(), reason="numba is not installed")


def both_ways(
    codec: Eden | Trellis, vector: Tensor, table: TensorTable, seed: int, unbiased: bool, patch: pytest.MonkeyPatch
) -> list[tuple[bytes, bytes]]:
    found = []
    for switch in ("1", "0"):
        patch.setenv(launch.SWITCH, switch)
        payload = codec.encode(vector, table, seed, unbiased=unbiased)
        found.append((payload, codec.decode(payload, table, seed).numpy().tobytes()))
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.integers(1, 8),
    size=st.integers(0, 5000),
    exponent=st.integers(-149, 39),
    seed=st.integers(0, 2**64 - 1),
    unbiased=st.booleans(),
)
def test_eden_has_the_same_bits_for_any_vector(
    bits: int, size: int, exponent: int, seed: int, unbiased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = (torch.randn(size, generator=torch.Generator().manual_seed(seed % 999)).double() * 2.0**exponent).float()
    vector.clamp_(-(2.0**40), 2.0**40)[: seed % 1500] = 0
    table = TensorTable.from_shapes({"w": (1, size)})
    kernels, plain = both_ways(Eden(bits), vector, table, seed, unbiased, monkeypatch)
    assert kernels == plain


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("codec", [Eden(1), Eden(3), Eden(8), Trellis(1), Trellis(3)])
def test_tables_of_several_tensors_have_the_same_bits(
    codec: Eden | Trellis, unbiased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TensorTable.from_shapes({"a": (70, 1024), "b": (7,), "c": (3, 999), "empty": (0, 9), "d": (65, 1024)})
    vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(0))
    vector *= 10.0 ** torch.linspace(4, -12, table.numel)
    kernels, plain = both_ways(codec, vector, table, 5, unbiased, monkeypatch)
    assert kernels == plain


@pytest.mark.parametrize("codec", [Eden(2), Trellis(1)])
def test_bits_do_not_depend_on_the_number_of_threads_or_on_who_else_encodes(codec: Eden | Trellis) -> None:
    table = TensorTable.from_shapes({"w": (300, 1024)})
    vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(codec.encode(vector, table, 1))
        others = [threading.Thread(target=lambda: found.append(codec.encode(vector, table, 1))) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
    finally:
        torch.set_num_threads(before)
    assert len(found) == 5
    assert len(set(found)) == 1


def test_without_numba_everything_works_in_plain_torch() -> None:
    script = """
import sys
sys.modules["numba"] = None
import torch
from fedsense_core.codecs.codec import get_codec
from fedsense_core.codecs.kernels import launch
from fedsense_core.tensors import TensorTable
assert not launch.is_available()
table = TensorTable.from_shapes({"w": (3, 1000)})
for name in ("eden", "trellis"):
    codec = get_codec(name, 1)
    assert codec.decode(codec.encode(torch.ones(3000), table, 0), table, 0).isfinite().all()
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

"""EDEN's Triton kernel: its arithmetic, in Triton's interpreter on any machine; its speed, where
there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fedsense_core
from fedsense_core.codecs import compiled, gpu
from fedsense_core.codecs.codebooks import codebook
from fedsense_core.codecs.layout import BlockLayout, Places
from fedsense_core.tensors import TensorTable

SAME_BITS = """
import torch
from fedsense_core.codecs import gpu
from fedsense_core.codecs.codebooks import codebook
from fedsense_core.codecs.eden import Eden
from fedsense_core.codecs.layout import BlockLayout
from fedsense_core.tensors import TensorTable

table = TensorTable.from_shapes({"a": (2, 1024), "bias": (5,), "b": (3, 999), "faint": (1, 1024)})
vector = torch.randn(table.numel, generator=torch.Generator().manual_seed(0))
vector[300:1100] = 0
vector[1024:2048] = 0
vector[-1024:] *= 2.0**-100
layout = BlockLayout.of(table)
blocks = slice(0, layout.blocks)
for bits in (1, 2, 3, 5, 8):
    for unbiased in (False, True):
        codes, scales = gpu.encode_eden(vector, layout.places(blocks, 7), codebook(bits), bits, unbiased)
        expected, wanted = torch.empty_like(codes).numpy(), torch.empty(layout.blocks)
        Eden(bits).encode_run(vector, layout, layout.runs(bits)[0], 7, unbiased, expected, wanted)
        assert codes.numpy().tobytes() == expected.tobytes(), (bits, unbiased)
        assert scales.numpy().tobytes() == wanted.numpy().tobytes(), (bits, unbiased)
print("equal")
"""


@pytest.mark.filterwarnings("ignore")
def test_the_kernel_has_the_bits_of_plain_torch_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    settings = {"TRITON_INTERPRET": "1", compiled.SWITCH: "0", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SAME_BITS],
        env=os.environ | settings | {"PYTHONPATH": str(Path(fedsense_core.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "equal"


@pytest.mark.gpu
def test_encoding_at_four_bits_takes_at_most_twice_the_time_of_reading_the_vector() -> None:
    table = TensorTable.from_shapes({"w": (86 * 1024, 1024)})
    vector = torch.randn(table.numel, device="cuda")
    layout = BlockLayout.of(table)
    cpu = layout.places(slice(0, layout.blocks), 0)
    places = Places(cpu.starts_K.cuda(), cpu.counts_K.cuda(), cpu.rows_K.cuda(), cpu.signs_TB.cuda())

    def milliseconds(work: object) -> float:
        found = []
        for _ in range(20):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()  # type: ignore[operator]
            end.record()
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end))
        return sorted(found)[len(found) // 2]

    copy_ms = milliseconds(vector.clone) / 2  # a clone reads and writes; encoding reads, and writes an eighth
    encode_ms = milliseconds(lambda: gpu.encode_eden(vector, places, codebook(4), 4, False))
    assert encode_ms <= 2 * 1.125 * copy_ms, (encode_ms, copy_ms)

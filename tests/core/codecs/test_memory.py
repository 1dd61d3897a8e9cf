"""Working memory does not grow with the model: a fresh process tells by its own high-water mark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedsense_core
from fedsense_core.codecs.kernels.launch import SWITCH

GROWTH = """
import json, resource, sys
import torch
from fedsense_core.codecs.codec import every_codec, get_codec
from fedsense_core.tensors import TensorTable

def high_water_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

big = TensorTable.from_shapes({"w": (8192, 1024), "bias": (1024 * 1024,)})
small = TensorTable.from_shapes({"w": (512, 1024), "bias": (9,)})
vector = torch.zeros(big.numel)
vector[::5] = 1.0
codecs = [codec for codec in every_codec() if codec.name != "trellis" and not codec.waterfill]
codecs += [get_codec("trellis", 1)]  # plain torch would take minutes for all of them
for codec in codecs:
    codec.decode(codec.encode(vector[: small.numel], small, 0), small, 0)
found, out = {}, torch.ones(big.numel)
for codec in sorted(codecs, key=lambda codec: codec.bits):
    start = high_water_mib()
    payload = codec.encode(vector, big, 0)
    codec.decode(payload, big, 0, out)
    found[f"{codec.name} {codec.bits}"] = high_water_mib() - start - len(payload) / 2**20
    del payload
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark has other units elsewhere")
@pytest.mark.slow
@pytest.mark.parametrize("switch", ["1", "0"])
def test_neither_way_needs_more_than_64_mib_beyond_input_and_output(switch: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", SWITCH: switch, "PYTHONPATH": str(Path(fedsense_core.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    growth = json.loads(result.stdout)
    assert len(growth) > 7
    assert max(growth.values()) < 64, growth

"""Every CPU decodes the same bits: otherwise replicas would drift apart one rounding at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fedsense_core
from fedsense_core.codecs.codec import Codec, every_codec
from fedsense_core.codecs.kernels.launch import SWITCH
from fedsense_core.tensors import TensorTable, vector_digest

TABLE = TensorTable.from_shapes({"a": (300, 1024), "b": (7, 999), "bias": (333,), "faint": (2, 1024)})
DIGESTS = """
import json, sys
from pathlib import Path
import torch
from fedsense_core.codecs.codec import codec_by_id
from fedsense_core.tensors import TensorTable, vector_digest

folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
table = TensorTable.from_shapes(json.loads((folder / "table.json").read_text()))
vector = torch.load(folder / "vector.pt", weights_only=True)
found = {}
for path in sorted(folder.glob("*.payload")):
    codec = codec_by_id(*map(int, path.stem.split("_")))
    payload = path.read_bytes()
    # searching through 4096 states takes plain torch too long for a test
    same = getattr(codec, "state_bits", 8) > 8 or codec.encode(vector, table, 11) == payload
    digests = []
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        digests.append(vector_digest(codec.decode(payload, table, 11)).hex())
    torch.set_flush_denormal(False)
    found[path.stem] = [same, *digests]
print(json.dumps([torch.backends.cpu.get_cpu_capability(), found]))
"""


def chosen() -> list[Codec]:
    return [one for one in every_codec() if not one.waterfill or getattr(one, "state_bits", 8) == 8]


def hard_vector() -> torch.Tensor:
    """Normal numbers with blocks from 1e-30 to 1e3, the faintest scales that travel, and zeros."""
    vector = torch.randn(TABLE.numel, generator=torch.Generator().manual_seed(0))
    for spec, view in TABLE.views(vector):
        rows = view[: spec.numel // 1024 * 1024].view(-1, 1024)
        rows *= 10.0 ** torch.linspace(3, -12, len(rows))[:, None]
        if spec.name == "faint":
            view *= 2.0**-58
    vector[5000:9000] = 0
    return vector


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder, vector = tmp_path_factory.mktemp("payloads"), hard_vector()
    (folder / "table.json").write_text(json.dumps({spec.name: spec.shape for spec in TABLE.specs}))
    torch.save(vector, folder / "vector.pt")
    digests = {}
    for codec in chosen():
        payload = codec.encode(vector, TABLE, 11)
        (folder / f"{codec.id}_{codec.bits}.payload").write_bytes(payload)
        digests[f"{codec.id}_{codec.bits}"] = vector_digest(codec.decode(payload, TABLE, 11)).hex()
    return folder, digests


@pytest.mark.parametrize(
    ("capability", "threads", "switch"),
    [
        ("default", 3, "0"),
        pytest.param("avx2", 1, "0", marks=pytest.mark.slow),
        pytest.param("avx2", 2, "1", marks=pytest.mark.slow),
        pytest.param("default", 1, "1", marks=pytest.mark.slow),
    ],
)
def test_replicas_are_equal_for_any_cpu_capability_thread_count_and_subnormal_mode(
    expected: tuple[Path, dict[str, str]], capability: str, threads: int, switch: str
) -> None:
    folder, digests = expected
    settings = {
        "ATEN_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": str(threads),
        SWITCH: switch,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CACHE_DIR": str(folder / "numba"),  # never beside the code of other processors
        "PYTHONPATH": str(Path(fedsense_core.__file__).parents[1]),
    }
    result = subprocess.run(
        [sys.executable, "-c", DIGESTS, str(folder), str(threads)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    reported, found = json.loads(result.stdout)
    if capability == "default":
        assert reported == "DEFAULT"
    assert found == {name: [True, digest, digest] for name, digest in digests.items()}

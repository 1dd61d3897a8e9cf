"""Golden files: this code writes exactly the committed bytes, and reads them to exactly the
recorded numbers.

After a change of the wire format on purpose: ``python tests/core/protocol/golden/make_golden.py``.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from fedsense_core.codecs.codec import codec_class
from fedsense_core.codecs.kernels.launch import SWITCH
from fedsense_core.codecs.settings import CodecName
from fedsense_core.protocol.broadcast import unbundle
from fedsense_core.protocol.frame import FrameKind, unpack

FOLDER = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]
MAKER = runpy.run_path(str(FOLDER / "make_golden.py"))
DIGESTS = json.loads((FOLDER / "digests.json").read_text(encoding="utf-8"))
FILES = {path.stem: np.fromfile(path, np.uint8) for path in sorted(FOLDER.glob("*.frame"))}

AGAIN = """
import json, runpy, sys
maker = runpy.run_path(sys.argv[1])
files = maker["golden"]()
print(json.dumps([{name: data.tobytes().hex() for name, data in files.items()}, maker["digests"](files)]))
"""


def test_there_is_a_golden_file_for_every_codec_and_kind() -> None:
    assert sorted(FILES) == sorted(DIGESTS)
    updates = [unpack(data)[0] for name, data in FILES.items() if name.startswith("update-")]
    assert {header.codec_id for header in updates} >= {codec_class(name).ids[0] for name in get_args(CodecName)}
    broadcasts = [
        unpack(frame)[0] for name in ("model", "drawn", "delta", "snapshot") for frame in unbundle(FILES[name])
    ]
    kinds = [header.kind for header in broadcasts]
    assert kinds == [FrameKind.MODEL, FrameKind.DRAWN, FrameKind.DELTA, FrameKind.DELTA, FrameKind.SNAPSHOT]


@pytest.mark.parametrize("name", sorted(FILES))
def test_golden_bytes_are_read_to_the_recorded_numbers(name: str) -> None:
    assert MAKER["digests"](FILES)[name] == DIGESTS[name]


def test_the_golden_bytes_are_written_again() -> None:
    written = MAKER["golden"]()
    assert [name for name in FILES if written[name].tobytes() != FILES[name].tobytes()] == []


def test_a_golden_header_reads_as_little_endian() -> None:
    head = FILES["update-eden-1"].tobytes()
    assert head[:8] == b"FSFR" + head[4:6] + bytes([FrameKind.UPDATE, 2])
    assert head[8:16] == bytes([1, 0, 0, 0, 3, 0, 0, 0])
    assert head[16:24] == bytes.fromhex("efcdab8967452301")
    assert int.from_bytes(head[64:72], "little") == MAKER["TABLE"].numel
    assert int.from_bytes(head[72:80], "little") == len(head) - 96


def test_recorded_numbers_are_those_of_little_endian_words() -> None:
    """Read the uncoded golden update with nothing of FedSense."""
    words = FILES["update-none"][96:].view("<f4")
    assert torch.equal(torch.from_numpy(words.astype(np.float32)), MAKER["numbers"](1, -6))


OTHERS = {SWITCH: "0", "OMP_NUM_THREADS": "3", "ATEN_CPU_CAPABILITY": "default"}


@pytest.mark.parametrize(
    "environment",
    [OTHERS, *(pytest.param({key: value}, marks=pytest.mark.slow) for key, value in OTHERS.items())],
)
def test_golden_bytes_do_not_depend_on_kernels_threads_or_instructions(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", AGAIN, str(FOLDER / "make_golden.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    written, digests = json.loads(result.stdout)
    assert [name for name in FILES if bytes.fromhex(written[name]) != FILES[name].tobytes()] == []
    assert digests == DIGESTS

"""Peak memory of the coordinator by the number of clients.

For each number a process of its own runs the real session, from settings to the exported encoder,
through Flower's own HttpGrid. The SuperLink is a stand-in in the same process that keeps objects on
disk (`tests/runtime_api.py`), and clients answer with one made-up update each round, coded as the
run asks. They hold nothing of the first model, so round 1 sends it whole to each.

    OMP_NUM_THREADS=1 python docs/experiments/server_memory.py --clients 2 8 32 64

Prints a Markdown table of the peak of resident memory (Linux) over all rounds, and how far it is
above that of the fewest clients. Exits with 1 where that is more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
from flwr.app import Message
from flwr.proto import message_pb2 as message_proto
from flwr.supercore.task_identity import TaskIdentity
from large_frames import RESET, resident
from runtime_api import Reply, RuntimeApi

from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import resolve
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.frame import FrameHeader, pack
from fedsense_core.protocol.messages import Handshake, TrainReply, handshake_nonce
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE
from server_app.round import Expected
from server_app.session import run_session
from server_app.strategy import FedSense

ALLOWED = 1.05
"""Times the peak with the fewest clients."""
FIRST_NODE = 100
SIZE = 1e-3
"""Of each number of an update, about."""
SETTINGS: dict[str, Any] = {
    "preset": "fedsense",
    "run.rounds": 2,
    "run.report": False,
    "run.evaluate_every": 0,
    "federation.labelled": "",
    "federation.wait_s": 0.0,
    "distillation.steps": 1,
    "distillation.batch_size": 4,
}
VIT_S: dict[str, Any] = {
    "model.architecture": "vit_small_patch16_224",
    "model.args": {"img_size": 64, "patch_size": 16, "global_pool": "avg"},
    "data.view_size": 64,
}


class Clients:
    """All clients of a run: they greet, and answer each round with the same update."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = resolve(settings)
        model = build_model(config)
        self.table = TensorTable.of(model, config.model.local_parameters)
        update = SIZE * torch.randn(self.table.numel, generator=torch.Generator().manual_seed(0))
        codec = codec_of(config.uplink)
        # Coded once for all: under the rotation of another site it is another update of equal norm.
        self.payload = bytes(codec.encode(update, self.table, 0))
        self.expected: Expected | None = None
        self.api: RuntimeApi | None = None

    def __call__(self, task_id: str, task: message_proto.Message) -> Reply:
        """Answer a message."""
        assert self.api is not None
        site = self.api.nodes[task.metadata.dst_node_id]
        small = self.api.content(task_id, leave_out="broadcast")
        if task.metadata.message_type == "train":
            content = self._reply(site, small).to_records()
        else:
            nonce = handshake_nonce(small)
            content = Handshake(site, chips=100, code=source_digest(), nonce=nonce).to_records()
        TaskIdentity.node_id = task.metadata.dst_node_id
        try:
            return Reply.of(Message(content, reply_to=small), task_id)
        finally:
            TaskIdentity.node_id = SERVER_NODE

    def _reply(self, site: str, task: Message) -> TrainReply:
        expected = self.expected
        assert expected is not None
        header = FrameHeader(
            kind=expected.kind,
            run_id=expected.stream.run_id,
            round=expected.round,
            base_version=expected.replica.version,
            base_digest=expected.digest,
            codec_id=expected.codec.id,
            bits=expected.codec.bits,
            elements=self.table.numel,
            table_digest=self.table.digest,
            payload_bytes=len(self.payload),
        )
        nonce = task.content.config_records["task"]["nonce"]
        assert isinstance(nonce, bytes)
        return TrainReply(
            site, "trained", "", {"num-examples": 8.0, "ssl-loss": 1.0}, pack(header, self.payload), nonce=nonce
        )


def peak_of(clients: int, settings: dict[str, Any], folder: Path) -> dict[str, float]:
    """Run a federation in this process; return the bytes that were resident before it, and the
    most during it."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    settings = settings | {"run.folder": str(folder / "run"), "federation.min_clients": clients}
    made_up = Clients(settings)
    (folder / "objects").mkdir()
    made_up.api = RuntimeApi(folder / "objects", {FIRST_NODE + i: f"site-{i:03d}" for i in range(clients)}, made_up)
    begin = FedSense.begin

    def watched(self: FedSense, number: int, grid: Any) -> Any:
        round = begin(self, number, grid)
        made_up.expected = round.expected
        return round

    FedSense.begin = watched  # type: ignore[method-assign]
    RESET.write_text("5")
    before = resident("VmRSS")
    run = run_session(resolve(settings), made_up.api.grid())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    accepted = [len(line["accepted"]) for line in lines if line["round"]]
    if accepted != [clients] * settings["run.rounds"]:
        raise SystemExit(f"of {clients} clients {accepted} were accepted: {lines[-1]['rejected'][:1]}")
    return {"before": before, "peak": resident("VmHWM")}


def measured(clients: int, settings: dict[str, Any]) -> dict[str, float]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fedsense-memory-") as folder:
        job = json.dumps({"clients": clients, "settings": settings, "folder": folder})
        child = subprocess.run([sys.executable, __file__, "--job", job], stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each number of clients, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 8, 32, 64])
    parser.add_argument("--settings", type=json.loads, default=VIT_S, help="JSON: of the model, instead of a ViT-S")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        job = options.job
        print(json.dumps(peak_of(job["clients"], job["settings"], Path(job["folder"]))))
        return 0
    peaks: dict[int, float] = {}
    print("| clients | peak, GB | above the fewest |\n|---|---|---|", flush=True)
    for clients in options.clients:
        peaks[clients] = measured(clients, SETTINGS | options.settings)["peak"]
        above = peaks[clients] / peaks[options.clients[0]] - 1
        print(f"| {clients} | {peaks[clients] / 1e9:.3f} | {100 * above:+.1f} % |", flush=True)
    return 0 if max(peaks.values()) <= ALLOWED * peaks[options.clients[0]] else 1


if __name__ == "__main__":
    sys.exit(main())

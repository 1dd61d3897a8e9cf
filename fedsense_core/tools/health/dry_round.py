"""One round of one step on an institution's own chips, in which nothing leaves: the institution's
ClientApp as it will run, with a task as the server would make it.

Run as ``python -m fedsense_core.tools.health.dry_round JOB.json REASON.txt`` in an app folder; what
came of it is written into the file that the job names.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import resolve
from fedsense_core.data.opening import load_site
from fedsense_core.errors import FedSenseError
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import Broadcaster, Stream
from fedsense_core.protocol.messages import NONCE_BYTES, Handshake, TrainReply, TrainTask, handshake_request
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.health.app_process import run_in_app
from fedsense_core.tools.runner.app_folder import project_file
from fedsense_core.tools.runner.child import do_or_tell
from fedsense_core.tools.runner.in_process_grid import FIRST_NODE, RUN_ID, SERVER_NODE
from fedsense_core.tools.runner.planning import Scalar

OWN_FILES = ("policy.toml",)
"""Files of an institution's folder that the ClientApp reads, beside its chips."""
DRY_RUN = 0xD21


@dataclass(frozen=True)
class DryRound:
    """What one step took."""

    seconds: float
    """Of the whole round, without the start of the process."""
    bytes_up: int
    resident: int
    """Most bytes of main memory."""
    gpu: int
    """Most bytes of the GPU; 0 without one."""
    loss: float


def dry_round(
    settings: Mapping[str, Scalar], flower_toml: Path | None, site: Path, state: Path, log: Path | None = None
) -> DryRound:
    """Train one step under a run's settings, in a process of its own.

    Chips go to, or come from, the institution's own folder ``state``; nothing else of it changes,
    and its audit log does not hear of it. Raises FedSenseError with the reason where the
    institution could not take part.
    """
    with tempfile.TemporaryDirectory(prefix="fedsense-dry-") as temporary:
        home = Path(temporary)
        result = home / "result.json"
        with own_chips(home / "state", site, state) as borrowed:
            job = {
                "settings": dict(settings),
                "node": {"site": str(site.expanduser().absolute()), "state-dir": str(borrowed)},
                "result": str(result),
            }
            run_in_app("fedsense_core.tools.health.dry_round", job, home, flower_toml, log or home / "dry.log")
        return DryRound(**json.loads(result.read_text(encoding="utf-8")))


@contextmanager
def own_chips(borrowed: Path, site: Path, state: Path) -> Iterator[Path]:
    """Yield a state folder that is new but for the chips and the policy of ``state``, which are
    linked: what a round leaves does not stay, and what is cut into chips does."""
    own = state / safe_name(load_site(site).name)
    own.mkdir(parents=True, exist_ok=True)
    (own / "chips").mkdir(exist_ok=True)
    (borrowed / own.name).mkdir(parents=True)
    (borrowed / own.name / "chips").symlink_to(own / "chips")
    for name in OWN_FILES:
        if (state / name).exists():
            (borrowed / name).symlink_to(state / name)
    yield borrowed


def client_app() -> ClientApp:
    """Return the ClientApp by the name that pyproject.toml gives Flower."""
    components = tomllib.loads(project_file("pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    module, _, name = components["components"]["clientapp"].partition(":")
    app = getattr(importlib.import_module(module), name)
    assert isinstance(app, ClientApp)
    return app


def first_task(settings: Mapping[str, Scalar]) -> TrainTask:
    """Return the task of round 1, for a client that draws the first model itself."""
    config = resolve(settings)
    model = build_model(config)
    table = TensorTable.of(model, config.model.local_parameters)
    broadcaster = Broadcaster(
        Stream(DRY_RUN, config.run.seed, table, config.momentum_in_use), codec_of(config.downlink)
    )
    replica = broadcaster.advance(table.read(model).float())
    zeros = np.zeros(len(table.specs), np.float32)
    return TrainTask(
        run_id=DRY_RUN,
        round=1,
        version=replica.version,
        acknowledged=0,
        code=source_digest(),
        config_digest=config.digest,
        radii=zeros,
        gammas=zeros,
        frames=broadcaster.frames_for(None, draws=True),
        nonce=bytes(NONCE_BYTES),
        clients=max(config.federation.min_clients, config.federation.quorum),  # that a round waits for
    )


def train_once(settings: Mapping[str, Scalar], node: Mapping[str, Scalar]) -> dict[str, Any]:
    """Greet the ClientApp as the run will, send it a first task of one step, and return what a
    DryRound is made of. Raises FedSenseError with the reason of a refusal."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    app = client_app()

    def asked(content: RecordDict, kind: str, chosen: Mapping[str, Scalar]) -> Message:
        context = Context(RUN_ID, FIRST_NODE, dict(node), RecordDict(), dict(chosen))
        return app(Message(content, FIRST_NODE, kind), context)

    # With all steps of the run, which the institution's own limits are about.
    greeting = Handshake.from_message(asked(handshake_request(DRY_RUN), "query.handshake", settings))
    if greeting.problem:
        raise FedSenseError(greeting.problem)
    short = {**settings, "train.local_steps": 1}
    reply = TrainReply.from_message(asked(first_task(short).to_records(), MessageType.TRAIN, short))
    if reply.status != "trained" or reply.frame is None:
        raise FedSenseError(reply.reason)
    return {
        "seconds": reply.metrics["total-seconds"],
        "bytes_up": int(reply.frame.nbytes) + sum(map(len, reply.attachments.values())),
        "resident": int(reply.metrics["resident-memory-bytes"]),
        "gpu": int(reply.metrics.get("gpu-memory-bytes", 0)),
        "loss": reply.metrics["ssl-loss"],
    }


def main(job_file: str, reason_file: str) -> int:
    """Run the job of a file. Returns the exit status."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))

    def work() -> None:
        result = train_once(job["settings"], job["node"])
        Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")

    return do_or_tell(work, reason_file)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

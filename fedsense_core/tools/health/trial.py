"""Two rounds of two steps with the real server and one real client, each in a process of its own:
what `fedsense plan` reckons with.

Run as ``python -m fedsense_core.tools.health.trial JOB.json REASON.txt`` in an app folder.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fedsense_core.config import Config, FederationSection, resolve
from fedsense_core.data.opening import load_site
from fedsense_core.data.sites.locations import site_files
from fedsense_core.errors import FedSenseError, SiteError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.tools.health.app_process import run_in_app
from fedsense_core.tools.health.client_process import ClientProcess
from fedsense_core.tools.health.dry_round import own_chips
from fedsense_core.tools.health.folder_size import size_of
from fedsense_core.tools.runner.app_folder import project_file
from fedsense_core.tools.runner.child import do_or_tell
from fedsense_core.tools.runner.in_process_grid import RUN_ID, SERVER_NODE, InProcessGrid
from fedsense_core.tools.runner.planning import Scalar

STEPS = 2
"""Of the client, and of the server's distillation, in each of two rounds."""


@dataclass(frozen=True)
class Trial:
    """What was measured: of the second round where nothing else is said, since the first one starts
    up."""

    lines: list[dict[str, Any]]
    """Those of metrics.jsonl, rounds 1 and 2."""
    distillation_steps: int
    """Of a round of the trial."""
    chips_bytes: int
    state_bytes: int
    """What the client keeps between rounds."""
    checkpoint_bytes: int
    cache_bytes: int
    """Chips of the public imagery."""
    encoder_bytes: int


def plan_run(
    settings: Mapping[str, Scalar], flower_toml: Path | None, site: Path | None, state: Path | None
) -> tuple[Config, Trial]:
    """Return a run's settings and its trial, with ``site``, or with the first shipped one that has
    the bands of the run."""
    config = resolve(settings, _tables(flower_toml))
    return config, run_trial(settings, flower_toml, site or _shipped_site(config), state)


def _shipped_site(config: Config) -> Path:
    """Raises SiteError where no shipped site has the run's bands."""
    files = site_files(config.model_copy(update={"federation": FederationSection()}))
    for path in files:
        bands = load_site(path).sources[0].card.names
        if config.data.bands == "all" or set(config.data.bands) <= set(bands):
            return path
    raise SiteError(
        f"data.bands = {','.join(config.data.bands)}: no shipped site has them all. Name a site file with --site"
    )


def _tables(flower_toml: Path | None) -> dict[str, Any] | None:
    return tomllib.loads(flower_toml.read_text(encoding="utf-8")).get("fedsense", {}) if flower_toml else None


def run_trial(settings: Mapping[str, Scalar], flower_toml: Path | None, site: Path, state: Path | None) -> Trial:
    """Run the trial of a run's settings with one institution.

    ``state`` is the institution's own folder where it is at hand: its chips are used, and stay.
    Raises FedSenseError with the reason where the run could not begin.
    """
    with tempfile.TemporaryDirectory(prefix="fedsense-plan-") as temporary:
        home = Path(temporary)
        mine = settings_of_trial(settings, flower_toml) | {"run.folder": str(home / "run")}
        with own_chips(home / "state", site, state or home / "own") as borrowed:
            node = {"site": str(site.expanduser().absolute()), "state-dir": str(borrowed)}
            job = {"settings": mine, "node": node}
            run_in_app("fedsense_core.tools.health.trial", job, home, flower_toml, home / "trial.log")
            return _measured(RunFolder(home / "run"), borrowed, int(mine.get("distillation.steps", 0)))


def settings_of_trial(settings: Mapping[str, Scalar], flower_toml: Path | None) -> dict[str, Scalar]:
    """Return the settings of a run for a trial: the same model, codecs and recipe, with one client
    and few steps."""
    config = resolve(settings, _tables(flower_toml))
    mine: dict[str, Scalar] = {
        **settings,
        "run.rounds": 2,
        "run.rounds_before": 0,
        "run.continued_from": "",
        "run.resume": "never",
        "run.report": False,
        "run.keep_models": False,
        "federation.min_clients": 1,
        "federation.quorum": 1,
        "federation.wait_s": 5.0,
        "federation.only": "",
        "train.local_steps": STEPS,
        "distillation.steps": min(STEPS, config.distillation.steps),
    }
    if config.run.evaluate_every:
        mine["run.evaluate_every"] = 2
    if config.aggregation.least_clients > 1:
        mine["aggregation.kind"] = "mean"
    return mine


def run_with_one_client(settings: Mapping[str, Scalar], node: Mapping[str, Scalar]) -> None:
    """Run the federation of a trial. Raises what the ServerApp raises."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    names = tomllib.loads(project_file("pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    module, _, name = names["components"]["serverapp"].partition(":")
    with ClientProcess() as client:
        server = getattr(importlib.import_module(module), name)
        assert isinstance(server, ServerApp)
        grid = InProcessGrid(client, settings, [node])
        server(grid, Context(RUN_ID, SERVER_NODE, {}, RecordDict(), dict(settings)))


def _measured(run: RunFolder, state: Path, distillation_steps: int) -> Trial:
    lines = [line for line in run.read_metrics() if line["round"] > 0]
    for line in lines:
        if not line["accepted"]:
            reason = "; ".join(one["reason"] for one in line["rejected"])
            raise FedSenseError(f"the trial's client could not take part: {reason}")
    (checkpoint, *_) = sorted(run.checkpoints.glob("round-*"), reverse=True)
    (own,) = (chips.parent for chips in state.glob("*/chips"))  # beside it: notes of the work at hand
    return Trial(
        lines=lines,
        distillation_steps=distillation_steps,
        chips_bytes=size_of((own / "chips").resolve()),
        state_bytes=sum(map(size_of, own.glob("run-*"))),
        checkpoint_bytes=size_of(checkpoint),
        cache_bytes=size_of(run.path / "cache"),
        encoder_bytes=size_of(run.encoder),
    )


def main(job_file: str, reason_file: str) -> int:
    """Run the job of a file. Returns the exit status."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    return do_or_tell(lambda: run_with_one_client(job["settings"], job["node"]), reason_file)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

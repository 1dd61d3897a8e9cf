"""What `fedsense plan` says of bytes is what a run then takes, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from federation import SITES, TINY, Federation, write_site
from typer.testing import CliRunner

from fedsense_core.config import resolve
from fedsense_core.errors import FedSenseError
from fedsense_core.tools.cli import app
from fedsense_core.tools.health.dry_round import dry_round
from fedsense_core.tools.health.planning import Situation, plan_of
from fedsense_core.tools.health.trial import STEPS, Trial, settings_of_trial

PLUS = {"preset": "fedsense-plus", "run.keep_models": True}


def test_bytes_of_a_run_are_those_that_were_planned(federation: Callable[..., Federation]) -> None:
    whole = federation("whole", changes={**PLUS, "run.rounds": 3})
    mine = settings_of_trial({key: value for key, value in whole.run_config.items() if key != "model.projector"}, None)
    assert (mine["train.local_steps"], mine["run.rounds"], mine["federation.quorum"]) == (STEPS, 2, 1)
    small = federation("trial", changes={**PLUS, "run.rounds": 2, "federation.min_clients": 1})
    for site in SITES[1:]:
        del small.grid.contexts[small.node(site)]
    small.run()
    trial = Trial(
        small.lines(), 1, chips_bytes=10, state_bytes=20, checkpoint_bytes=30, cache_bytes=40, encoder_bytes=5
    )
    plan = plan_of(whole.config, trial, Situation(len(SITES), 20.0, 100.0))
    whole.run()
    lines = whole.lines()
    assert plan.coordinator.received == sum(line["bytes_up"] for line in lines) == 3 * plan.institution.sent
    assert plan.coordinator.sent == sum(line["bytes_down"] for line in lines) == 3 * plan.institution.received
    assert plan.institution.disk == 30
    assert plan.coordinator.disk == 2 * 30 + 3 * lines[0]["bytes_up"] // 3 + 5 * 4 * lines[0]["elements"] + 45
    later = 8e-6 * (lines[1]["bytes_up"] + lines[1]["bytes_down"]) / 3
    assert plan.round_s["transfer"] == pytest.approx(max(later / 20, 3 * later / 100))
    assert plan.seconds == pytest.approx(3 * sum(plan.round_s.values()))


@pytest.mark.slow
def test_dry_step_trains_on_the_institutions_chips_and_leaves_nothing_but_them(tmp_path: Path) -> None:
    site, state = write_site(tmp_path, "alpha", 0), tmp_path / "state"
    settings = {key: value for key, value in TINY.items() if not isinstance(value, dict | list)}
    settings["model.args"] = json.dumps(TINY["model.args"])
    took = dry_round(settings, None, site, state)
    assert took.bytes_up > 10_000
    assert took.resident > 1e8
    assert [path.name for path in state.iterdir()] == ["alpha"]
    assert [path.name for path in (state / "alpha").iterdir()] == ["chips"]
    with pytest.raises(FedSenseError, match="nir"):
        dry_round(settings | {"data.bands": "red,nir"}, None, site, state)


@pytest.mark.slow
def test_plan_measures_server_and_client_in_processes_of_their_own(tmp_path: Path) -> None:
    site = write_site(tmp_path, "alpha", 0)
    settings = [f"{key}={json.dumps(value)}" for key, value in TINY.items() if not isinstance(value, dict | list)]
    settings += [
        f"model.args={json.dumps(TINY['model.args'])}",
        f"federation.public={write_site(tmp_path, 'public', 1)}",
    ]
    result = CliRunner().invoke(app, ["plan", *settings, "-n", "3", "--site", str(site), "--json"])
    assert result.exit_code == 0, result.output
    plan: dict[str, Any] = json.loads(result.stdout)
    assert plan["modelled"]
    assert plan["rounds"] == resolve(TINY, {}).run.rounds
    for role in ("institution", "coordinator"):
        assert plan[role]["memory"] > 1e8
        assert all(plan[role][what] > 0 for what in ("sent", "received", "disk"))

"""One trial of a benchmark goes on from whatever it finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from federation import Federation

from fedsense_core.config import resolve
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.benchmark.trial_process import do_trial


def order(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return an order of which nothing is left to do."""
    nothing = {"untrained": False, "settings": {}, "jobs": [], "tasks": {}, "data": {}, "analyse": False}
    return {"folder": str(folder), "engine": "in-process", "prune": False, **nothing, **changes}


def test_a_run_that_cannot_be_analysed_keeps_its_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation(tmp_path, {"preset": "fedavg", "run.rounds": 1, "run.keep_models": False})
    run = federation.run()
    assert run.encoder.is_dir()
    do_trial(order(run.path, analyse=True, prune=True))
    assert "not analysed: " in capsys.readouterr().out
    assert not run.analysis_file.exists()
    assert not run.checkpoints.exists(), "it went on to the end"


@pytest.mark.parametrize("other", [{"seed": 7}, {"an_old_setting": 3}])
def test_an_unfinished_run_of_other_settings_is_begun_anew(
    other: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "preset": "fedavg",
        "run.folder": str(tmp_path / "trial"),
        "run.keep_models": False,
        "run.report": False,
    }
    config = json.loads(resolve(settings).model_dump_json())
    run = RunFolder.create(tmp_path / "trial", config | {"run": config["run"] | other})
    kept = tmp_path / "kept"
    RunFolder.create(kept, config)
    begun: list[bool] = []

    def run_federation(settings: dict[str, Any], nodes: int) -> None:
        folder = Path(settings["run.folder"])
        begun.append(folder.exists())
        if not folder.exists():
            RunFolder.create(folder, config)
        (folder / "encoder").mkdir()
        RunFolder(folder).finish()

    monkeypatch.setattr("fedsense_core.tools.benchmark.trial_process.run_federation", run_federation)
    for folder in (run.path, kept):
        mine = settings | {"run.folder": str(folder)}
        job = {"title": "one", "settings": mine, "folder": str(folder), "rounds": 1, "supernodes": 1}
        do_trial(order(folder, jobs=[job]))
    assert begun == [False, True]

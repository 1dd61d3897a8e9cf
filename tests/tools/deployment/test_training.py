"""`fedsense coordinator run` and `resume`: settings that live with the run, and an exit status that
a service manager can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.deployment import running
from fedsense_core.tools.deployment.control import RunState
from fedsense_core.tools.deployment.coordinator_folder import CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.running import Ear
from fedsense_core.tools.deployment.training import Training, plan, recall, remember

Starts = list[Training]


def test_settings_live_with_the_run_and_come_back_as_they_were(tmp_path: Path) -> None:
    folder = CoordinatorFolder(tmp_path)
    pairs = ["run.rounds=7", "train.recipe=simclr", "run.report=false", "federation.quorum=2", "run.seed=3"]
    pairs += ["model.args={ layers = [1, 1, 1, 0] }", 'federation.labelled=""', "train.temperature=0.2"]
    planned = plan(pairs, None, folder)
    assert planned.folder == tmp_path / "runs" / "fedsense-seed3"
    assert planned.settings["aggregation.clip"] == "median"
    assert remember(planned) == planned == recall(planned.folder)
    RunFolder.create(planned.folder, planned.resolved().model_dump(mode="json"))
    moved = planned.folder.rename(tmp_path / "moved")
    assert recall(moved).settings == {**planned.settings, "run.folder": str(moved)}
    assert plan(["aggregation.clip=none"], None, folder).settings["aggregation.clip"] == "none"


def test_tables_of_flower_toml_live_with_the_run_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[fedsense.data]\nbands = ["red", "nir"]\n')
    planned = remember(plan([f"run.folder={tmp_path / 'run'}"], mine, CoordinatorFolder(tmp_path)))
    mine.unlink()
    assert recall(planned.folder).resolved().data.bands == ("red", "nir")


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("run.rounds", "'run.rounds' is not of the form key=value"),
        ("run.ruonds=2", "unknown setting 'run.ruonds'. Did you mean 'run.rounds'?"),
        ("run.rounds=many", "run.rounds"),
    ],
)
def test_wrong_setting_is_named_before_anything_starts(tmp_path: Path, pair: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?").replace(".", r"\.")):
        plan([pair], None, CoordinatorFolder(tmp_path))


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "is missing"), ("not toml", "cannot be read"), ("a = [1]", "a = ")]
)
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(DeploymentError, match=rf"settings\.toml.*{reason}"):
        recall(tmp_path)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Starts]:
    """Return a function that says how each start ends, and what the list of starts is."""

    def of(*fates: str, rounds: Callable[[int], int] = lambda start: 0, present: tuple[RunState, ...] = ()) -> Starts:
        starts: Starts = []

        @contextmanager
        def connect(folder: Any) -> Iterator[None]:
            yield None

        def start(control: Any, training: Training, folder: Any) -> int:
            starts.append(training)
            return len(starts)

        def follow(folder: Any, run_id: int, *rest: Any) -> RunState:
            return RunState(run_id, f"finished:{fates[run_id - 1]}", "the disk is full", "", "")

        monkeypatch.setattr(running, "connect", connect)
        monkeypatch.setattr(running, "start", start)
        monkeypatch.setattr(running, "follow", follow)
        monkeypatch.setattr(running, "under_way", lambda control, path=None: list(present))
        monkeypatch.setattr(running, "_rounds", lambda run: rounds(len(starts)))
        monkeypatch.setattr(running.time, "sleep", lambda seconds: pauses.append(seconds))
        return starts

    pauses: list[float] = []
    of.pauses = pauses  # type: ignore[attr-defined]
    return of


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return plan([f"run.folder={tmp_path / 'run'}", "run.report=false"], None, CoordinatorFolder(tmp_path))


def heard() -> tuple[list[str], Ear]:
    words: list[str] = []
    return words, Ear(words.append, words.append, words.append)


@pytest.mark.parametrize(("fate", "status"), [("completed", 0), ("failed", 1), ("stopped", 3)])
def test_exit_status_says_how_the_run_ended(
    ends: Callable[..., Starts], training: Training, tmp_path: Path, fate: str, status: int
) -> None:
    starts, (words, ear) = ends(fate), heard()
    assert running.run(CoordinatorFolder(tmp_path), training, ear) == status
    assert starts == [training]
    assert recall(training.folder) == training
    assert any("the disk is full" in line for line in words) == (fate == "failed")


def test_failed_run_is_started_again_while_it_gets_further(
    ends: Callable[..., Starts], training: Training, tmp_path: Path
) -> None:
    starts, (_, ear) = ends(*["failed"] * 20, "completed", rounds=lambda start: start // 2), heard()
    assert running.run(CoordinatorFolder(tmp_path), training, ear, restart=True) == 0
    assert len(starts) == 21
    assert max(ends.pauses) == 20.0  # type: ignore[attr-defined]


def test_run_that_gets_no_further_is_left_to_a_person(
    ends: Callable[..., Starts], training: Training, tmp_path: Path
) -> None:
    starts, (words, ear) = ends(*["failed"] * 20), heard()
    assert running.run(CoordinatorFolder(tmp_path), training, ear, restart=True) == 1
    assert len(starts) == running.MOST_FAILURES + 1
    assert "it is not started again" in words[-1]


def test_run_under_way_is_followed_and_a_finished_one_is_left_alone(
    ends: Callable[..., Starts], training: Training, tmp_path: Path
) -> None:
    present = RunState(1, "running", "", str(training.folder), "")
    starts, (_, ear) = ends("completed", present=(present,)), heard()
    assert running.run(CoordinatorFolder(tmp_path), training, ear) == 0
    assert starts == []
    remember(training)
    RunFolder.create(training.folder, resolve(training.settings).model_dump(mode="json"))
    training.run.finished_file.write_text("{}")
    starts = ends()
    assert running.resume(CoordinatorFolder(tmp_path), training.folder, ear) == 0
    assert starts == []

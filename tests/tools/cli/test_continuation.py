"""`fedsense run --continue`: the settings of a finished run, more rounds, another folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from federation import SITES, TINY, write_site
from typer.testing import CliRunner

from fedsense_core.config import LATER_KEYS, resolve
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.cli import app
from fedsense_core.tools.runner.continuation import going_on
from fedsense_core.tools.runner.planning import Request, plan

runner = CliRunner()
OWN = {"preset": "fedsense-plus", "train.learning_rate": 1e-5, "downlink.bits": 3, "data.bands": "red,green,blue"}


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """Return a finished run of four rounds, whose settings differ from preset and flower.toml."""
    for seed, name in enumerate(SITES):
        write_site(tmp_path / "sites", name, seed)
    settings = TINY | OWN | {"federation.sites": str(tmp_path / "sites"), "run.seed": 5}
    run = RunFolder.create(tmp_path / "runs" / "one", resolve(settings, {}).model_dump(mode="json"))
    (run.path / "clients").mkdir()
    run.finish()
    return run


def test_it_has_all_settings_of_the_finished_run_and_more_rounds(finished: RunFolder) -> None:
    with going_on(finished.path, Request(settings={"run.rounds": 6})) as request:
        (job,) = plan(request)
        assert request.flower_toml is not None
        tables = tomllib.loads(request.flower_toml.read_text(encoding="utf-8"))
        resolved = job.resolved(request.flower_toml)
    assert tables["superlink"]["default"] == "simulation"
    assert job.folder == finished.path.with_name("one-to-10")
    expected = finished.read_config()
    expected["run"] |= {
        "rounds": 10,
        "rounds_before": 4,
        "continued_from": str(finished.path),
        "folder": str(job.folder),
    }
    assert resolved == expected
    assert all(isinstance(value, bool | int | float | str) for value in job.settings.values())


def test_a_continuation_of_a_continuation_keeps_one_number_in_its_name(finished: RunFolder) -> None:
    finished.path.rename(finished.path.with_name("one-to-4"))
    with going_on(finished.path.with_name("one-to-4"), Request(settings={"run.rounds": 2})) as request:
        assert request.out == finished.path.with_name("one-to-6")


def test_what_may_differ_can_be_given(finished: RunFolder, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"run.rounds": 1, "train.learning_rate": 0.5, "run.evaluate_every": 3}
    with going_on(finished.path, Request(settings=changes, out=tmp_path / "two")) as request:
        (job,) = plan(request)
        resolved = job.resolved(request.flower_toml)
    assert (resolved["train"]["learning_rate"], resolved["run"]["evaluate_every"]) == (0.5, 3)
    assert job.folder == tmp_path / "two"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), "--continue needs --rounds"),
        (Request("fedavg", {"run.rounds": 1}), "leave out --preset and --config"),
        (Request(settings={"run.rounds": 1}, flower_toml=Path("mine.toml")), "leave out --preset and --config"),
        (Request(settings={"run.rounds": 1, "run.seed": 6}), r"run\.seed = 6 cannot change.*has 5.*train\.warmup"),
        (Request(settings={"run.rounds": 1, "train.local_steps": 9}), r"train\.local_steps = 9 cannot change"),
    ],
)
def test_what_cannot_go_together_is_refused(finished: RunFolder, request_: Request, words: str) -> None:
    with pytest.raises(ConfigError, match=words), going_on(finished.path, request_):
        pass


def test_only_a_finished_simulation_goes_on(finished: RunFolder, tmp_path: Path) -> None:
    request = Request(settings={"run.rounds": 1})
    (finished.path / "clients").rmdir()
    with pytest.raises(CheckpointError, match=r"fedsense coordinator run run\.continued_from=.*before=4"):
        going_on(finished.path, request).__enter__()
    finished.finished_file.unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        going_on(finished.path, request).__enter__()
    with pytest.raises(CheckpointError, match="holds no run"):
        going_on(tmp_path / "nothing", request).__enter__()


def test_keys_that_may_differ_exist() -> None:
    tree = resolve({}, {})
    assert all(hasattr(getattr(tree, key.split(".")[0]), key.split(".")[1]) for key in LATER_KEYS)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["in-process", pytest.param("simulation", marks=pytest.mark.e2e)])
def test_the_command_trains_longer(finished: RunFolder, tmp_path: Path, engine: str) -> None:
    write_site(tmp_path, "public", 99)
    words = ["run", "--engine", engine, "--sites", str(tmp_path / "sites"), "--public", str(tmp_path / "public.toml")]
    words += [
        "--set",
        "federation.labelled=",
        "--set",
        "data.chip_size=16",
        "--set",
        "data.view_size=16",
        "--set",
        "train.batch_size=4",
    ]
    words += ["--set", "train.local_steps=2", "--set", "distillation.batch_size=4", "--out", str(tmp_path / "short")]
    first = runner.invoke(app, [*words, "--rounds", "1"])
    assert first.exit_code == 0, first.output
    longer = ["run", "--engine", engine, "--continue", str(tmp_path / "short"), "--rounds", "2"]
    done = runner.invoke(app, longer)
    assert done.exit_code == 0, done.output
    assert "the learning rate begins a new schedule" in done.stdout
    assert "round 3/3" in done.stdout
    lines = RunFolder(tmp_path / "short-to-3").read_metrics()
    assert [line["round"] for line in lines if line["round"]] == [1, 2, 3]
    assert all(line["accepted"] == list(SITES) and not line["notes"] for line in lines if line["round"])
    again = runner.invoke(app, longer)
    assert again.exit_code == 2
    assert "holds a finished run" in again.stderr

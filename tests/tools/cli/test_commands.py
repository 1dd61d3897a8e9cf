from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsense_core.config import known_keys
from fedsense_core.config.presets import PRESETS
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.cli import app

runner = CliRunner()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "fedsens"], "Did you mean 'fedsense'?"),
        (["--set", "trian.local_steps=2"], "Did you mean 'train.local_steps'?"),
        (["--set", "train.local_steps=many"], "train.local_steps = 'many'"),
        (["--sites", "nowhere"], "holds no site files"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_wrong_input_ends_with_2_and_one_readable_line(options: list[str], words: str) -> None:
    result = runner.invoke(app, ["run", *options])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_finished_folder_ends_with_2(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {}).finish()
    result = runner.invoke(app, ["run", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "--out" in result.stderr


def test_settings_lists_every_key_whole_even_in_a_narrow_terminal() -> None:
    output = runner.invoke(app, ["settings"]).stdout
    assert all(key in output for key in known_keys())


def test_presets_lists_every_preset() -> None:
    output = runner.invoke(app, ["presets"]).stdout
    assert all(name in output for name in PRESETS)


def test_version_names_what_numbers_depend_on() -> None:
    output = runner.invoke(app, ["--version"]).stdout
    assert all(name in output for name in ("fedsense", "flwr", "torch"))


def test_help_lists_the_commands() -> None:
    output = runner.invoke(app, ["--help"]).stdout
    assert all(name in output for name in ("run", "report", "data", "presets", "settings"))


def test_help_of_data_lists_its_commands() -> None:
    output = runner.invoke(app, ["data", "--help"]).stdout
    assert all(name in output for name in ("init", "check", "preview"))


def test_report_of_no_run_ends_with_2(tmp_path: Path) -> None:
    result = runner.invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no run" in result.stderr


def test_report_is_written_from_metrics_alone_and_then_left_as_it_is(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"preset": "fedavg", "run": {"rounds": 1, "seed": 0}})
    run.append_metrics({"round": 1, "loss": 1.0, "bytes_up": 1, "bytes_down": 1, "accepted": ["a"], "rejected": []})
    first = runner.invoke(app, ["report", str(run.path)])
    assert first.exit_code == 0, first.output
    written = run.report_file.stat().st_mtime_ns
    assert str(run.report_file) in first.stdout.replace("\n", "")
    runner.invoke(app, ["report", str(run.path)])
    assert run.report_file.stat().st_mtime_ns == written

from pathlib import Path

import pytest
from federation import write_raster, write_site
from typer.testing import CliRunner

from fedsense_core.cli import app
from fedsense_core.config import known_keys
from fedsense_core.presets import PRESETS
from fedsense_core.reporting import RunFolder

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
    assert all(name in output for name in ("run", "report", "check", "presets", "settings"))


def test_check_counts_chips_and_names_broken_files(tmp_path: Path) -> None:
    site = write_site(tmp_path, "alpha", 1)
    write_raster(tmp_path / "alpha" / "scene.tif", 1, side=160)
    (tmp_path / "alpha" / "broken.tif").write_bytes(b"II*\0 not an image")
    result = runner.invoke(app, ["check", str(site), "--state", str(tmp_path / "state")])
    assert result.exit_code == 0, result.output
    assert "4 chips of 64 x 64 pixels with red, green, blue" in result.stdout
    assert "skipped" in result.stdout
    assert "broken.tif" in result.stdout
    assert list((tmp_path / "state" / "alpha" / "chips").rglob("*.npy")), "training finds the chips again"


def test_check_of_a_site_without_usable_imagery_ends_with_2(tmp_path: Path) -> None:
    result = runner.invoke(app, ["check", str(write_site(tmp_path, "small", 1))])
    assert result.exit_code == 2
    assert "small" in result.stderr


def test_check_of_a_missing_file_ends_with_2(tmp_path: Path) -> None:
    result = runner.invoke(app, ["check", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "none.toml" in result.stderr


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

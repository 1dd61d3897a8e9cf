"""`fedsense data check --against`: imagery that a site and another set both hold."""

from __future__ import annotations

from pathlib import Path

from federation import write_raster
from typer.testing import CliRunner, Result

from fedsense_core.tools.cli import app

runner = CliRunner()


def data(*arguments: str | Path) -> Result:
    return runner.invoke(app, ["data", *map(str, arguments)])


def test_check_names_the_sets_in_which_the_imagery_is_too(tmp_path: Path) -> None:
    for seed, name in enumerate(("mine", "public", "task/images/train", "task/images/test")):
        write_raster(tmp_path / name / "a.tif", seed, side=128)
    for name in ("public", "task/images/test"):
        write_raster(tmp_path / name / "shared.tif", 7, side=128)
    write_raster(tmp_path / "mine" / "shared.tif", 7, side=128)
    write_raster(tmp_path / "task/images/train/b.tif", 0, side=128)
    for name in ("mine", "public"):
        (tmp_path / f"{name}.toml").write_text(f'name = "x"\n[[sources]]\npaths = ["{name}/*.tif"]\nsensor = "rgb"\n')
    mine, public, task = tmp_path / "mine.toml", tmp_path / "public.toml", tmp_path / "task"
    assert "also in" not in data("check", mine).stdout
    result = data("check", mine, "--against", public, "--against", task)
    said = "".join(result.stdout.split())
    assert result.exit_code == 0, result.output
    for other in (public, task):
        assert f"50%ofthechipsarealsoin{other}" in said
    (tmp_path / "empty").mkdir()
    assert data("check", mine, "--against", tmp_path / "empty").exit_code == 2

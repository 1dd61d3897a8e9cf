"""What Flower sends to every node is exactly the code: no imagery, no tests, nothing that happens
to lie about."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fedsense_core.config import FROM_PRESET, known_keys, resolve
from fedsense_core.tools.runner.app_folder import PACKAGES, assemble

ROOT = Path(__file__).parent.parent
FLOWER_LIMIT = 10 * 2**20
OWN_FILES = {"pyproject.toml", "flower.toml", "LICENSE"}


def build(app: Path, folder: Path) -> Path:
    """Return the bundle that Flower's own command makes of an app."""
    folder.mkdir()
    environment = dict(os.environ) | {"FLWR_HOME": str(folder / "home")}
    command = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(app)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (bundle,) = folder.glob("*.fab")
    return bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("bundle") / "clone")


def test_bundle_holds_the_code_of_the_three_packages_and_nothing_else(bundle: Path) -> None:
    code = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    assert {name for name in names if not name.startswith(".info/")} == code | OWN_FILES
    assert bundle.stat().st_size < FLOWER_LIMIT


def test_fedsense_run_makes_the_bundle_of_the_clone_byte_for_byte(bundle: Path, tmp_path: Path) -> None:
    assembled = build(assemble(tmp_path / "app"), tmp_path / "assembled")
    assert assembled.name == bundle.name
    assert assembled.read_bytes() == bundle.read_bytes()


def app_config() -> dict[str, object]:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    return {
        f"{section}.{key}" if isinstance(keys, dict) else section: value
        for section, keys in tables.items()
        for key, value in (keys.items() if isinstance(keys, dict) else [("", keys)])
    }


def test_every_single_valued_setting_can_be_given_to_flwr_run() -> None:
    defaults = resolve({})
    single = set()
    for key in known_keys():
        value: object = defaults
        for part in key.split("."):
            value = getattr(value, part)
        if isinstance(value, bool | int | float | str):
            single.add(key)
    single.add("data.bands")  # a list that may be given as one text
    assert set(app_config()) == single


def test_flwr_run_without_settings_leaves_everything_to_the_preset() -> None:
    config = app_config()
    assert config.pop("preset") == "preset"
    assert set(config.values()) == {FROM_PRESET}
    assert resolve(app_config()) == resolve({})

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
from flwr.cli.build import build_fab_from_disk

from fedsense_core.config import FROM_PRESET, known_keys, resolve
from fedsense_core.fingerprint import TOOLS, digest_of, source_digest, travelling_files
from fedsense_core.tools.runner.app_folder import assemble

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pathspec")
ROOT = Path(__file__).parent.parent
FLOWER_LIMIT = 10 * 2**20
OWN_FILES = {"pyproject.toml", "flower.toml", "LICENSE"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle that Flower's own command makes of the clone."""
    folder = tmp_path_factory.mktemp("bundle")
    environment = dict(os.environ) | {"FLWR_HOME": str(folder / "home")}
    command = [str(Path(sys.executable).parent / "flwr"), "build", "--app", str(ROOT)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (bundle,) = folder.glob("*.fab")
    return bundle


def test_bundle_holds_what_server_and_clients_run_and_nothing_else(bundle: Path) -> None:
    code = {path.relative_to(ROOT).as_posix() for path in travelling_files(ROOT)}
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    assert {name for name in names if not name.startswith(".info/")} == code | OWN_FILES
    assert not any(name.startswith(f"{TOOLS.as_posix()}/") for name in names)
    assert bundle.stat().st_size < FLOWER_LIMIT


def test_fedsense_run_makes_the_bundle_of_the_clone_byte_for_byte(bundle: Path, tmp_path: Path) -> None:
    assert build_fab_from_disk(assemble(tmp_path / "app")) == bundle.read_bytes()


def test_an_edit_of_the_tools_changes_neither_bundle_nor_digest_and_any_other_edit_does(
    bundle: Path, tmp_path: Path
) -> None:
    app = assemble(tmp_path / "app")
    assert digest_of(app) == source_digest()
    (app / TOOLS / "runner" / "new.py").write_text('"""Ours."""\n')
    (app / TOOLS / "cli" / "commands.py").write_text("")
    assert build_fab_from_disk(app) == bundle.read_bytes()
    assert digest_of(app) == source_digest()
    for name in ("fedsense_core/errors.py", "server_app/app.py", "client_app/app.py", *OWN_FILES):
        edited = app / name
        before = edited.read_bytes()
        edited.write_bytes(before + b"\n[new]\nvalue = 1\n")
        assert digest_of(app) != source_digest(), name
        edited.write_bytes(before)
    (app / "fedsense_core" / "errors.py").write_bytes(b"\n")
    assert build_fab_from_disk(app) != bundle.read_bytes()


def test_both_apps_start_from_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    code = """
import server_app.app, client_app.app, fedsense_core
assert fedsense_core.__file__.startswith(__import__("os").getcwd()), fedsense_core.__file__
try:
    import fedsense_core.tools
except ModuleNotFoundError:
    print("no tools")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "no tools\n"


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
    single |= {"data.bands", "model.args"}  # a list and a table that may be given as one text
    assert set(app_config()) == single


def test_flwr_run_without_settings_leaves_everything_to_the_preset() -> None:
    config = app_config()
    assert config.pop("preset") == "preset"
    assert set(config.values()) == {FROM_PRESET}
    assert resolve(app_config()) == resolve({})

from pathlib import Path

from fedsense_core.config import flower_defaults
from fedsense_core.fingerprint import PACKAGES
from fedsense_core.tools.runner.app_folder import assemble

ROOT = Path(__file__).parents[3]


def test_assembled_app_is_the_running_code_and_no_imagery(tmp_path: Path) -> None:
    app = assemble(tmp_path / "app")
    files = [path for path in app.rglob("*") if path.is_file()]
    assert {path.name for path in app.iterdir()} == {*PACKAGES, "pyproject.toml", "flower.toml", "LICENSE"}
    assert {path.suffix for path in files if path.parent != app} == {".py"}
    for path in files:
        assert path.read_bytes() == (ROOT / path.relative_to(app)).read_bytes()
    assert sum(path.suffix == ".py" for path in files) == sum(len(list((ROOT / p).rglob("*.py"))) for p in PACKAGES)


def test_changed_flower_toml_travels_with_the_app(tmp_path: Path) -> None:
    changed = tmp_path / "mine.toml"
    changed.write_text('[fedsense.data]\nbands = ["red"]\n')
    app = assemble(tmp_path / "app", changed)
    assert (app / "flower.toml").read_text() == changed.read_text()
    assert flower_defaults()["data"]["bands"] == ["red", "green", "blue"], "the shipped file stays as it is"

"""Institutions and coordinators install neither Ray nor plotting; who needs more is told in one
line what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from fedsense_core.fingerprint import travelling_files
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.cli import app
from fedsense_core.tools.extras import EXTRAS

ROOT = Path(__file__).parents[2]
COMMANDS_OF_ANYBODY = (
    "fedsense_core.tools.cli.commands",
    "fedsense_core.tools.cli.analyse_command",
    "fedsense_core.tools.analysis",
    "fedsense_core.tools.onboarding.checking",
    "fedsense_core.tools.onboarding.drafting",
    "fedsense_core.tools.runner.running",
    "fedsense_core.tools.runner.in_process",
)
NEED_NUMBA = ["fedsense_core.codecs.kernels.numba_kernels"]
WITH_OTHERS = {"torchvision", "scipy"}
"""Packages of an extra that come with others in any case: timm and scikit-learn need them."""


def test_the_list_of_modules_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        lines = project["optional-dependencies"][extra]
        wanted = {"ray"} if lines == ["flwr[simulation]"] else {Requirement(line).name for line in lines}
        assert {name for module in modules for name in map(str.lower, distributions[module])} == wanted, extra
    assert any(line.startswith("flwr>=") for line in project["dependencies"]), "without its simulation"


def test_server_clients_and_their_commands_load_without_any_extra() -> None:
    blocked = sorted({module for modules in EXTRAS.values() for module in modules} - WITH_OTHERS)
    travelling = [path.relative_to(ROOT).with_suffix("").parts for path in travelling_files(ROOT)]
    names = [".".join(parts).removesuffix(".__init__") for parts in travelling]
    code = f"""
import importlib, sys
sys.modules |= dict.fromkeys({blocked})
for name in {sorted([*names, *COMMANDS_OF_ANYBODY])}:
    if name not in {NEED_NUMBA}:
        importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["run"], "ray", "simulation"),
        (["evaluate", "nowhere", "--task", "segmentation"], "torchmetrics", "evaluate"),
        (["evaluate", "nowhere", "--task", "detection"], "faster_coco_eval", "evaluate"),
        (["benchmark", "matrix.toml", "--out", "nowhere"], "torchmetrics", "evaluate"),
        (["benchmark", "matrix.toml", "--out", "nowhere"], "jinja2", "report"),
        (["data", "preview", "site.toml"], "matplotlib", "report"),
    ],
)
def test_a_command_without_its_extra_names_it_in_one_line(
    words: list[str], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert module in result.stderr
    assert f'pip install "fedsense[{extra}]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_everything_that_is_missing_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torchmetrics", "jinja2"):
        monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(app, ["benchmark", "matrix.toml", "--out", "nowhere"])
    assert 'torchmetrics, jinja2: pip install "fedsense[evaluate,report]"' in result.stderr


def test_a_report_without_its_extra_is_refused_and_a_run_in_process_needs_no_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", {"preset": "fedavg"})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(app, ["report", str(run.path)])
    assert result.exit_code == 2
    assert 'pip install "fedsense[report]"' in result.stderr
    result = CliRunner().invoke(app, ["run", "--engine", "in-process", "--sites", "nowhere"])
    assert "holds no site files" in result.stderr

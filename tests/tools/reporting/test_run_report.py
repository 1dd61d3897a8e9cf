"""The report at the end of a run needs nothing but the run's folder and the imagery it names."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from federation import MASKED_CONV, Federation

from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.reporting.run_report import is_current, report_at_the_end, report_run

CHANGES = {"run.rounds": 1, "run.report": True, "federation.labelled": "sample"}
MASKED = {key.replace("__", "."): value for key, value in MASKED_CONV.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Return a federation that has run, with its report."""
    federation = Federation(tmp_path_factory.mktemp("masked"), CHANGES | MASKED)
    federation.run()
    return federation


def titles(run: RunFolder) -> list[str]:
    return [group["title"] for group in json.loads(run.pictures_file.read_bytes())["groups"]]


@pytest.fixture
def run(finished: Federation, tmp_path: Path) -> RunFolder:
    """Return a copy of its folder, without report and pictures."""
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folder.path, copy.path)
    copy.report_file.unlink()
    copy.pictures_file.unlink()
    return copy


def heard(run: RunFolder) -> list[str]:
    """Report the run and return what was said."""
    said: list[str] = []
    report_run(run, said.append)
    return said


def test_a_run_ends_with_a_report_and_all_its_pictures(finished: Federation) -> None:
    assert titles(finished.folder) == ["Sample chips", "Nearest neighbours", "Features as colours", "Reconstructions"]
    assert "Reconstructions" in finished.folder.report_file.read_text(encoding="utf-8")
    assert is_current(finished.folder)


def test_pictures_are_the_same_from_models_and_from_the_newest_checkpoint(finished: Federation, run: RunFolder) -> None:
    assert not is_current(run)
    shutil.rmtree(run.models)
    assert heard(run) == []
    assert run.pictures_file.read_bytes() == finished.folder.pictures_file.read_bytes()


def test_the_exported_encoder_alone_gives_all_pictures_but_the_decoders(finished: Federation, run: RunFolder) -> None:
    shutil.rmtree(run.models)
    shutil.rmtree(run.checkpoints)
    assert heard(run) == []
    groups = [json.loads(one.pictures_file.read_bytes())["groups"] for one in (finished.folder, run)]
    assert groups[1] == groups[0][:3]


def test_without_the_imagery_the_earlier_pictures_stay_and_it_is_said_why(run: RunFolder) -> None:
    assert heard(run) == []
    pictures = run.pictures_file.read_bytes()
    settings = json.loads(run.config_file.read_bytes())
    settings["federation"]["public"] = "/nowhere/public.toml"
    run.config_file.write_text(json.dumps(settings))
    (said,) = heard(run)
    assert "no new pictures: /nowhere/public.toml" in said
    assert run.pictures_file.read_bytes() == pictures
    assert "Nearest neighbours" in run.report_file.read_text(encoding="utf-8")


def test_a_run_without_matplotlib_is_complete_and_says_what_makes_its_report(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    report_at_the_end(run, said.append)
    assert said[0].startswith('no report: a report needs matplotlib: pip install "fedsense[report]" ')
    assert f"`fedsense report {run.path}`" in said[0]
    assert not run.report_file.exists()


def test_no_report_is_written_where_the_settings_want_none(run: RunFolder) -> None:
    settings = json.loads(run.config_file.read_bytes())
    settings["run"]["report"] = False
    run.config_file.write_text(json.dumps(settings))
    report_at_the_end(run, print)
    assert not run.report_file.exists()

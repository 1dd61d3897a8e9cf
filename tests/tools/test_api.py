"""The Python API that notebooks use, on a real tiny run."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from federation import SITES, TINY, write_site

import fedsense_core
from fedsense_core.errors import CheckpointError, ConfigError, FedSenseError, SiteError
from fedsense_core.tools.api import Run

CONFIG = {key: value for key, value in TINY.items() if key != "model.projector"} | {
    "model.args": json.dumps(TINY["model.args"]),
    "run.rounds": 1,
    "run.report": True,
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed, name in enumerate(SITES):
        write_site(folder / "sites", name, seed)
    write_site(folder, "public", 99)
    return folder


def train(archive: Path, **changes: object) -> Run:
    options = {"sites": archive / "sites", "public": archive / "public.toml", "out": archive / "run", "threads": 1}
    return fedsense_core.run(CONFIG, **options | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown() -> io.StringIO:
    """Return what the run of `finished` prints."""
    return io.StringIO()


@pytest.fixture(scope="module")
def finished(archive: Path, shown: io.StringIO) -> Run:
    with contextlib.redirect_stdout(shown):
        return train(archive)


def test_a_run_returns_what_it_left(finished: Run, archive: Path) -> None:
    assert finished.folder == archive / "run"
    assert [line["round"] for line in finished.metrics] == [0, 1]
    assert finished.metrics[1]["accepted"] == list(SITES)
    assert finished.report == archive / "run" / "report.html"
    assert fedsense_core.load_encoder(finished.encoder).bands == ("red", "green", "blue")


def test_called_again_it_returns_the_finished_run_at_once_and_refuses_other_settings(
    finished: Run, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(archive) == finished
    assert capsys.readouterr().out == ""
    longer = CONFIG | {"run.rounds": 2}
    with pytest.raises(CheckpointError, match=r"run\.rounds = 1 then, 2 now"):
        fedsense_core.run(longer, sites=archive / "sites", public=archive / "public.toml", out=archive / "run")


def test_scores_come_with_their_interval_and_their_gain_over_random_weights(finished: Run) -> None:
    (score,) = fedsense_core.evaluate(finished, "classification", heads=["knn"])
    assert (score.task, score.mode, score.head) == ("classification", "frozen", "knn")
    assert score.low <= score.value <= score.high
    assert score.gain is not None
    assert score.gain.low <= score.gain.value <= score.gain.high
    (alone,) = fedsense_core.evaluate(finished.encoder, heads=["knn"], control=False)
    assert alone.value == score.value
    assert alone.gain is None


def test_wrong_words_raise_what_the_commands_say(archive: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'run\.rounds'"):
        fedsense_core.run({"run.round": 2})
    with pytest.raises(ConfigError, match="out="):
        fedsense_core.run({"run.folder": "there"})
    with pytest.raises(ConfigError, match=r"federation\.only"):
        fedsense_core.run({"preset": "standalone"})
    with pytest.raises(SiteError, match="holds no site files"):
        fedsense_core.run(sites=archive / "nowhere")
    with pytest.raises(ConfigError, match="Did you mean 'segmentation'"):
        fedsense_core.evaluate("encoder", "segmentatin")  # type: ignore[arg-type]


def test_the_progress_is_printed(finished: Run, shown: io.StringIO) -> None:
    assert finished.report is not None
    assert "round 1/1" in shown.getvalue()


def test_a_failure_raises_with_its_reason(archive: Path) -> None:
    with pytest.raises(FedSenseError, match=r"gone\.toml: cannot be read"):
        train(archive, public=archive / "gone.toml", out=archive / "failed", show=False)

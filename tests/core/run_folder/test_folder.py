"""A run folder belongs to one run, and its metrics survive a kill at any byte."""

from __future__ import annotations

import json

import pytest

from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder import RunFolder

CONFIG = {"preset": "fedsense", "run": {"rounds": 8, "resume": "auto"}, "data": {"bands": ("red", "green")}}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "first", CONFIG)


def fill(run: RunFolder, rounds: int) -> None:
    for number in range(rounds):
        run.append_metrics({"round": number, "loss": number / 10})


def test_created_run_is_found_and_opened_with_its_configuration(run):
    assert RunFolder.exists(run.path)
    opened = RunFolder.open(run.path, CONFIG)
    assert opened == run
    assert opened.read_config()["data"] == {"bands": ["red", "green"]}
    assert opened.read_metrics() == []
    assert run.checkpoints.is_dir()


def test_run_may_start_in_an_empty_folder_or_after_a_killed_start(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".config.json.tmp").write_text('{"preset": ')
    assert RunFolder.create(tmp_path, CONFIG).read_config()["preset"] == "fedsense"


def test_finished_run_is_neither_overwritten_nor_continued(run):
    run.finish({"rounds": 8})
    assert RunFolder.open(run.path).is_finished
    for attempt in (RunFolder.create, RunFolder.open):
        with pytest.raises(CheckpointError, match=r"finished run: choose another run\.folder"):
            attempt(run.path, CONFIG)


def test_unfinished_run_is_not_overwritten(run):
    with pytest.raises(CheckpointError, match=r'unfinished run: continue it with run\.resume = "auto"'):
        RunFolder.create(run.path, CONFIG)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        RunFolder.create(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(CheckpointError, match="not an empty folder"):
        RunFolder.create(tmp_path / "thesis.tex", CONFIG)


def test_opening_a_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        RunFolder.open(tmp_path)


def test_run_is_not_continued_with_other_settings(run):
    other = {**CONFIG, "run": {"rounds": 9, "resume": "never"}}
    with pytest.raises(CheckpointError, match=r"run\.rounds = 8 then, 9 now"):
        RunFolder.open(run.path, other)
    with pytest.raises(CheckpointError, match=r"\(run\.resume = 'auto' then, 'never' now\)"):
        RunFolder.open(run.path, other, free={"run.rounds"})
    assert RunFolder.open(run.path, other, free={"run.rounds", "run.resume"}) == run


def test_damaged_configuration_is_named(run):
    run.config_file.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        RunFolder.open(run.path, CONFIG)


def test_metrics_come_back_as_they_were_written(run):
    line = {"round": 1, "loss": 0.1 + 0.2, "loss_by_site": {"Zürich": 1e-30}, "bytes_up": 2**60, "probe": None}
    run.append_metrics(line)
    run.append_metrics({"round": 2, "accepted": ["a"], "rejected": [{"node": "b", "reason": "line\nbreak"}]})
    assert run.read_metrics()[0] == line
    assert run.read_metrics()[1]["rejected"][0]["reason"] == "line\nbreak"
    assert len(run.metrics_file.read_bytes().splitlines()) == 2


def test_numbers_that_are_not_finite_are_written_as_null(run):
    run.append_metrics({"round": 1, "loss": float("nan"), "drift": {"a": float("inf")}, "x": [float("-inf"), 1.0]})
    assert run.read_metrics() == [{"round": 1, "loss": None, "drift": {"a": None}, "x": [None, 1.0]}]
    assert "NaN" not in run.metrics_file.read_text()


def test_metrics_survive_a_kill_at_every_byte_of_the_last_line(run):
    fill(run, 3)
    whole = run.metrics_file.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start, len(whole)):
        run.metrics_file.write_bytes(whole[:end])
        reopened = RunFolder.open(run.path, CONFIG)
        assert [m["round"] for m in reopened.read_metrics()] == [0, 1]
        reopened.append_metrics({"round": 2, "loss": 0.2})
        assert run.metrics_file.read_bytes() == whole


def test_reading_never_changes_a_folder_that_another_process_writes(run):
    fill(run, 1)
    with run.metrics_file.open("ab") as file:
        file.write(b'{"round": 1, "lo')
    torn = run.metrics_file.read_bytes()
    assert len(RunFolder.open(run.path).read_metrics()) == 1
    assert run.metrics_file.read_bytes() == torn


def test_damaged_line_in_the_middle_is_named(run):
    fill(run, 3)
    lines = run.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join([lines[0], "{oops", lines[2]]) + "\n")
    with pytest.raises(CheckpointError, match=r"line 2 of .*metrics\.jsonl"):
        run.read_metrics()


def test_truncating_drops_the_rounds_that_a_resumed_run_repeats(run):
    fill(run, 5)
    run.truncate_after(2)
    assert [m["round"] for m in run.read_metrics()] == [0, 1, 2]
    run.append_metrics({"round": 3})
    assert [json.loads(line)["round"] for line in run.metrics_file.read_text().splitlines()] == [0, 1, 2, 3]


def test_truncating_a_run_without_metrics_is_harmless(run):
    run.truncate_after(0)
    assert run.read_metrics() == []

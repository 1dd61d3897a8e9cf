"""`fedsense evaluate` from an exported folder to table, results and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labelled_toys import exported, real_chips, write_image
from typer.testing import CliRunner, Result

from fedsense_core.tools.cli import app
from fedsense_core.tools.downstream import segmentation
from fedsense_core.tools.downstream.result import load_results

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("run") / "encoder")


def test_the_shipped_example_gives_table_results_and_pictures(encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (encoder, "--task", "segmentation", "--head", "linear", "--steps", "3", "--seeds", "2", "--out", out)
    done = run(*words)
    assert done.exit_code == 0, done.output
    for text in ("north-carolina", "mean-iou", "random weights", "gain", "±", "truth of 1996"):
        assert text in done.stdout
    (result,), (control,) = (load_results(out / name) for name in ("results.npz", "random-weights.npz"))
    assert result.key == control.key == "segmentation/north-carolina/frozen/linear"
    assert result.scores != control.scores
    assert len(result.scores) == 2
    assert (out / "pictures" / "frozen-linear.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text()
    before = (out / "results.npz").stat().st_mtime_ns
    (out / "table.md").unlink()
    assert run(*words).exit_code == 0  # continued: nothing is trained again
    assert (out / "results.npz").stat().st_mtime_ns == before
    assert (out / "table.md").read_text() == table
    other = run(*words[:-4], "--seeds", "1", "--out", out)
    assert other.exit_code == 2
    assert "other settings (seeds)" in other.output


def test_an_interrupted_evaluation_keeps_the_heads_that_are_done(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (encoder, "--task", "segmentation", "--steps", "2", "--seeds", "1", "--no-random", "--out")
    build = segmentation.BUILD["upernet"]

    def cut_short(*args: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setitem(segmentation.BUILD, "upernet", cut_short)
    assert run(*words, tmp_path / "cut").exit_code != 0
    (first,) = load_results(tmp_path / "cut" / "results.npz")
    monkeypatch.setitem(segmentation.BUILD, "upernet", build)
    monkeypatch.setitem(segmentation.BUILD, "linear", cut_short)  # is not trained again
    assert run(*words, tmp_path / "cut").exit_code == 0
    monkeypatch.undo()
    assert run(*words, tmp_path / "whole").exit_code == 0
    cut, whole = (load_results(tmp_path / name / "results.npz") for name in ("cut", "whole"))
    assert [(one.head, one.scores) for one in cut] == [(one.head, one.scores) for one in whole]
    assert first.scores == whole[0].scores


def test_other_images_or_a_damaged_file_continue_nothing(encoder: Path, tmp_path: Path) -> None:
    chips = real_chips(9)
    for i, chip in enumerate(chips[:8]):
        write_image(tmp_path / "mine" / ("river", "forest")[i % 2] / f"{i}.png", chip)
    words = (encoder, "--task", "classification", "--data", tmp_path / "mine", "--no-random", "--out", tmp_path / "o")
    assert run(*words).exit_code == 0
    write_image(tmp_path / "mine" / "river" / "8.png", chips[8])
    changed = run(*words)
    assert changed.exit_code == 2
    assert "other settings (images)" in changed.output
    (tmp_path / "mine" / "river" / "8.png").unlink()
    results = tmp_path / "o" / "results.npz"
    whole = bytearray(results.read_bytes())
    whole[len(whole) // 2] ^= 255
    results.write_bytes(whole)
    damaged = run(*words)
    assert damaged.exit_code == 2
    assert "delete it, and run again" in damaged.output


def test_a_users_folder_and_no_control(encoder: Path, tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(8)):
        write_image(tmp_path / "mine" / ("river", "forest")[i % 2] / f"{i}.png", chip)
    done = run(encoder, "--task", "classification", "--data", tmp_path / "mine", "--no-random", "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert "random weights" not in done.stdout
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "pictures",
        "results.npz",
        "settings.json",
        "table.md",
    ]
    assert json.loads((tmp_path / "o" / "settings.json").read_text())["task"] == "classification"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "segmentatin"), "Did you mean 'segmentation'"),
        (("--task", "segmentation", "--head", "linea"), "Did you mean 'linear'"),
        (("--task", "segmentation", "--mode", "frozn"), "Did you mean 'frozen'"),
        (("--task", "classification", "--data", "nowhere"), "is no folder. Looked for"),
        (("--task", "classification", "--sensor", "sentinel2", "--data", "."), "Looked for"),
        (("--task", "segmentation", "--device", "gpu"), "device 'gpu' cannot be used here"),
    ],
)
def test_wrong_words_end_with_status_2_and_leave_nothing(
    encoder: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run(encoder, *words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_never_written_into(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = run(encoder, "--task", "segmentation", "--out", tmp_path)
    assert done.exit_code == 2
    assert "holds other files" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder_to_write_into(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = run(encoder, "--task", "segmentation", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "is a file. Give a folder with --out" in done.output


def test_bands_may_be_named_with_spaces_and_what_was_found_is_said(encoder: Path, tmp_path: Path) -> None:
    for i, chip in enumerate(real_chips(8)):
        write_image(tmp_path / "mine" / ("river", "forest")[i % 2] / f"{i}.png", chip)
    words = ("--task", "classification", "--data", tmp_path / "mine", "--bands", "blue, green, red", "--head", "knn")
    done = run(encoder, *words, "--no-random", "--device", "cpu", "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert "mine: 4 training and 4 test images, 2 classes, bands blue, green, red; on cpu" in done.stderr

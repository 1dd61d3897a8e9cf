"""The script that draws the README's picture, without a browser: what stays of a report, and how it
is stored."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_run import short_history
from PIL import Image

from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.reporting.report import write_report
from fedsense_core.tools.reporting.tiles import ReportPictures, Row, Tile

SCRIPT = Path(__file__).parents[1] / "docs" / "experiments" / "readme_picture.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def report(folder: Path, pictures: ReportPictures) -> str:
    run = RunFolder.create(folder / "run", {"preset": "fedsense"})
    for line in short_history():
        run.append_metrics(line)
    return write_report(run, pictures).read_text(encoding="utf-8")


def test_head_and_chosen_sections_of_a_report_stay(script: dict[str, Any], tmp_path: Path) -> None:
    row = Row("modis", (Tile(np.zeros((8, 8, 3), np.uint8), "image"),))
    page = script["excerpt"](report(tmp_path, ReportPictures(chips=(row,), pca=(row,))))
    assert [title for title in script["SHOWN"] if f"<h2>{title}</h2>" not in page] == []
    assert page.count("<section") == page.count("</section>") == len(script["SHOWN"])
    assert "Linear probe, macro F1" in page
    assert "Client drift" not in page


def test_a_report_without_pictures_is_refused(script: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no section Sample chips, Features as colours"):
        script["excerpt"](report(tmp_path, ReportPictures()))


def test_empty_space_below_is_cut_and_a_large_picture_refused(script: dict[str, Any], tmp_path: Path) -> None:
    shot = Image.new("RGB", (60, 400), "white")
    shot.paste("navy", (0, 0, 60, 50))
    assert script["trimmed"](shot).size == (60, 71)
    script["write_small"](shot, tmp_path / "out" / "small.png")
    assert Image.open(tmp_path / "out" / "small.png").convert("RGB").getpixel((5, 5)) == (0, 0, 128)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8))
    with pytest.raises(SystemExit, match="more than 300,000"):
        script["write_small"](noise, tmp_path / "large.png")

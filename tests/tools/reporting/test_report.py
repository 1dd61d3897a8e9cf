"""The report is one valid, self-contained page, at any point of a run, and repeats nothing
unescaped."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.reporting.pictures import chip_sheet
from fedsense_core.tools.reporting.report import write_report
from fedsense_core.tools.reporting.tiles import ReportPictures, Row, Tile

CONFIG = {"preset": "fedsense", "run": {"rounds": 4, "seed": 0}, "model": {"args": {"norm_layer": "groupnorm"}}}
NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what a test asks about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", CONFIG)


def page_of(run: RunFolder, history, pictures=None) -> tuple[str, Page]:
    for line in history:
        run.append_metrics(line)
    html = write_report(run, pictures).read_text(encoding="utf-8")
    return html, Page(html)


def picture(value: int = 0) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shared_history) -> tuple[str, Page]:
    """The report of a finished run with pictures."""
    run = RunFolder.create(tmp_path_factory.mktemp("run"), CONFIG)
    run.finish()
    pictures = ReportPictures(
        chips=chip_sheet({"modis": torch.rand(3, 3, 8, 8)}),
        neighbours=(Row("crop", (Tile(picture(), "query: crop"), Tile(picture(9), "ice, 0.90", False))),),
        pca=(Row("", (Tile(picture(), "image"),)),),
        reconstructions=(Row("", (Tile(NOISE, "reconstructed"),)),),
    )
    return page_of(run, shared_history, pictures)


def test_report_holds_its_summary_curves_pictures_and_tables(whole):
    _, page = whole
    assert page.headings == [
        "FedSense run: fedsense",
        "Quality of the encoder",
        "Loss",
        "Bytes",
        "Client drift",
        "Server-to-client guidance",
        "Time",
        "Sample chips",
        "Nearest neighbours",
        "Features as colours",
        "Reconstructions",
        "Rejected replies",
    ]
    for promised in (
        "3 institutions, 4 of 4 rounds, 1 min 32 s, finished",
        "0.380 ± 0.020",
        "random weights 0.250 ± 0.020: +0.130, +4.6 standard errors",
        "1.43 MB",
        "30.8 times fewer than float32",
        "6.00 MB",
        "in 4 rounds; 1 rejected",
        "checksum differs",
        "model.args",
        '{"norm_layer": "groupnorm"}',
    ):
        assert promised in page.text, promised


def test_report_is_self_contained(whole):
    html, page = whole
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert not {"script", "link", "iframe"} & set(page.tags)
    without_data = re.sub(r"data:image/[^\"]*", "", html)
    assert "http" not in without_data
    assert "url(" not in without_data


def test_every_picture_has_a_text_for_those_who_cannot_see_it(whole):
    alts = [image["alt"] for image in whole[1].images]
    assert len(alts) == 6 + 3 + 2 + 1 + 1
    assert all(alts)
    assert "Sample chips: modis, chip 1" in alts
    assert "Nearest neighbours: crop, ice, 0.90 (another class)" in alts


def test_pictures_keep_their_pixels(whole):
    png = base64.b64decode(whole[1].images[-1]["src"].removeprefix("data:image/png;base64,"))
    shown = (imread(io.BytesIO(png))[..., :3] * 255).round().astype(np.uint8)
    assert np.array_equal(shown, NOISE)


@pytest.mark.parametrize("rounds", [0, 1])
def test_report_works_before_the_end(run, history, rounds):
    _, page = page_of(run, history[: rounds + 1])
    assert f"{rounds} of 4 rounds" in page.text
    assert "not finished" in page.text
    assert ("No round has ended yet" in page.text) == (rounds == 0)


def test_report_of_a_run_that_wrote_nothing(run):
    _, page = page_of(run, [])
    assert page.images == []
    assert "no probe was made" in page.text
    assert "None." in page.text


def test_report_of_a_run_in_which_every_reply_was_rejected(run):
    refused = [{"node": f"site {i}", "reason": "not finite"} for i in range(3)]
    line = {
        "round": 1,
        "loss": None,
        "bytes_up": 0,
        "bytes_down": 9,
        "accepted": [],
        "rejected": refused,
        "probe": None,
    }
    _, page = page_of(run, [line])
    assert "3 in all" in page.text
    assert "site 2" in page.text


def test_notes_are_shown_with_their_round_and_institution_and_only_where_there_are_any(run, make_round):
    line = make_round(1, [])
    _, without = page_of(run, [line])
    assert "Notes" not in without.text
    line["notes"] = [{"site": "delta", "note": "its residual of round 1 was dropped <b>"}]
    html, page = page_of(run, [line])
    assert "Notes" in page.text
    assert "delta" in page.text
    assert "its residual of round 1 was dropped <b>" in page.text
    assert "<b>" not in html


def test_names_and_reasons_from_clients_are_escaped(run, make_round):
    evil = "<script>alert(1)</script>"
    line = make_round(1, [{"node": evil, "reason": f'"><img src=x onerror=alert(2)>{evil}'}])
    line["loss_by_site"] = line["drift"] = {evil: 1.0}
    line["accepted"] = [evil]
    pictures = ReportPictures(chips=(Row(evil, (Tile(picture(), f'" onload="{evil}'),)),))
    html, page = page_of(run, [line], pictures)
    assert "<script" not in html
    assert "script" not in page.tags
    assert not any(set(image) - {"src", "alt"} for image in page.images)
    assert evil in page.text
    assert evil in page.images[-1]["alt"]


def test_configuration_values_are_escaped(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"preset": "<i>x</i>", "model": {"<b>": "</code><script>"}})
    html, _ = page_of(run, [])
    assert "<script" not in html
    assert "<i>" not in html


def test_report_is_reproducible_and_replaced(run, history):
    first, _ = page_of(run, history[:1])
    assert write_report(run).read_text(encoding="utf-8") == first
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "report.html",
    ]

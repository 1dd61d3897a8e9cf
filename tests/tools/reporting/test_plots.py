"""Curves exist exactly where there are figures, whatever is missing, and leave no global trace."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from fedsense_core.tools.reporting import plots

ALL = ["Quality of the encoder", "Loss", "Bytes", "Client drift", "Server-to-client guidance", "Time"]


def test_full_run_has_every_curve_as_valid_svg(history):
    before = dict(mpl.rcParams)
    curves = plots.draw_all(history)
    assert dict(mpl.rcParams) == before, "drawing changed matplotlib's settings"
    assert pyplot.get_fignums() == [], "drawing registered a figure with pyplot"
    assert [curve.title for curve in curves] == ALL
    for curve in curves:
        assert ET.fromstring(curve.svg).tag.endswith("svg")
        assert curve.explanation
        assert curve.alt


def test_same_run_gives_the_same_bytes(history):
    assert plots.loss(history).svg == plots.loss(history).svg


def test_run_without_rounds_has_no_curves(history):
    assert plots.draw_all([]) == []
    assert [c.title for c in plots.draw_all(history[:1])] == ["Quality of the encoder"]


def test_one_round_is_enough(history):
    assert [c.title for c in plots.draw_all(history[:2])] == ALL


def test_round_that_failed_is_a_gap(history):
    history[2] = {"round": 2, "loss": None, "loss_by_site": {}, "accepted": [], "rejected": [], "probe": None}
    assert plots.bytes_sent(history) is not None
    assert "from 5.000 in round 1 to 1.250 in round 4" in plots.loss(history).alt


def test_run_in_which_everybody_failed_draws_what_there_is():
    failed = [{"round": n, "loss": None, "bytes_up": 0, "bytes_down": 10, "seconds": {"total": 1.0}} for n in (1, 2)]
    assert [c.title for c in plots.draw_all(failed)] == ["Bytes", "Time"]


def test_alt_text_says_what_the_curve_shows(history):
    assert "linear probe ends at 0.380, random weights give 0.250" in plots.probes(history).alt
    assert "1.43 MB went up and 6.00 MB went down" in plots.bytes_sent(history).alt
    assert "from 0.30 to 0.50" in plots.drift(history).alt


@pytest.mark.parametrize("name", ["_hidden", "$x$", "a$b", "ünï\x00code", "x" * 300, "", "<&>"])
def test_any_site_name_can_be_drawn(history, name):
    for line in history[1:]:
        line["loss_by_site"] = {name: 1.0, "other": 2.0}
    ET.fromstring(plots.loss(history).svg)


def test_a_hundred_sites_are_drawn_as_a_crowd_with_its_median(history):
    few = plots.drift(history)
    for line in history[1:]:
        line["drift"] = line["cosine"] = {f"site {i}": i / 100 for i in range(100)}
    many = plots.drift(history)
    assert many is not None
    assert len(many.svg) < 20 * len(few.svg)

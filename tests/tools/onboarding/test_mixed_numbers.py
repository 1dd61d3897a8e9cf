"""Files that look alike can hold numbers of different kinds, of which one source reads one."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import drafted, pixels_of, raster

from fedsense_core.tools.onboarding.drafting import draft_site

SIDE = (64, 64)


@pytest.mark.parametrize(
    ("bands", "one", "other"),
    [
        (("VV", "VH"), (0.01, 0.5), (-25.0, -3.0)),
        (("B4", "B3", "B2"), (0.02, 0.6), (200.0, 6000.0)),
    ],
    ids=["powers and decibels", "reflectance and counts"],
)
def test_a_source_of_two_kinds_of_numbers_is_left_to_a_person(
    tmp_path: Path, bands: tuple[str, ...], one: tuple[float, float], other: tuple[float, float]
) -> None:
    """HyP3 offers powers and decibels; Earth Engine's collections hold counts, and examples divide
    them."""
    for i in range(12):
        values = pixels_of(f"a{i}", (len(bands), *SIDE), "float32", *(other if i == 7 else one))
        raster(tmp_path / "archive" / f"scene_{i:02}.tif", values, names=bands)
    draft = draft_site(tmp_path / "archive", tmp_path / "site.toml", None, lambda done, total: None)
    (entry,) = draft.entries
    assert "scene_07.tif holds" in entry.guess.missing
    assert draft.fault


def test_scales_of_hyp3_in_one_archive_are_sources_of_their_own(tmp_path: Path) -> None:
    """ASF HyP3, RTC product guide, naming convention: power, amplitude, decibel; 10 and 30 m."""
    for letter, size, low, high in (
        ("p", 30, 0.01, 0.5),
        ("d", 30, -25, -3),
        ("a", 30, 0.1, 0.7),
        ("p", 10, 0.01, 0.5),
    ):
        name = f"S1A_IW_20180128T161201_DVP_RTC{size}_G_g{letter}uned_FD6A"
        for band in ("VV", "VH"):
            values = pixels_of(name + band, SIDE, "float32", low, high)
            raster(tmp_path / "archive" / name / f"{name}_{band}.tif", values, size)
    _, site = drafted(tmp_path / "archive")
    found = sorted((source.card.decibels, source.card.gsd_m, len(source.scenes)) for source in site.sources)
    assert found == [("amplitude", 30.0, 1), ("no", 30.0, 1), ("power", 10.0, 1), ("power", 30.0, 1)]

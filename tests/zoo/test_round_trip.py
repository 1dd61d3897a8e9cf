"""The layouts by what an institution types, `fedsense data init` and `check`, and a round of
training on what they made."""

from __future__ import annotations

from pathlib import Path

import pytest
from federation import SITES, Federation, write_site
from zoo.comparing import write_drafted
from zoo.framework import Layout
from zoo.test_zoo import LAYOUTS

from fedsense_core.tools.onboarding.checking import check_site

READ = [layout for layout in LAYOUTS if not layout.refused]
MIXED = [layout for layout in READ if layout.name in ("landsat-c2-l2", "safe-l2a-offset", "sen12ms")]


def threes(layouts: list[Layout]) -> list[list[Layout]]:
    """Return sites for federations, the last ones with some of the first."""
    return [(layouts[i:] + layouts)[: len(SITES)] for i in range(0, len(layouts), len(SITES))]


def trained(layouts: list[Layout], folder: Path) -> list[str]:
    """Return the sites whose update was accepted, after one round on the drafts of ``layouts``."""
    for site, layout in zip(SITES, layouts, strict=True):
        write_drafted(layout, folder / "sites" / site, folder / "sites" / f"{site}.toml")
    write_site(folder, "public", 99)
    run = Federation(folder, {"data.bands": "all", "run.rounds": 1})
    run.run()
    (line,) = run.lines()
    accepted: list[str] = line["accepted"]
    return accepted


def test_drafted_sites_of_three_institutions_train_a_round(tmp_path: Path) -> None:
    assert trained(MIXED, tmp_path) == list(SITES)


@pytest.mark.slow
@pytest.mark.parametrize("layouts", threes(READ), ids=lambda layouts: ", ".join(map(str, layouts)))
def test_every_drafted_layout_trains_a_round(layouts: list[Layout], tmp_path: Path) -> None:
    assert trained(layouts, tmp_path) == list(SITES)


@pytest.mark.slow
@pytest.mark.parametrize("layout", READ, ids=str)
def test_every_drafted_layout_passes_the_check(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    write_drafted(layout, tmp_path / "archive", path)
    assert "warning" not in check_site(path, "all", layout.chip_px, None).verdict.plain

"""Public layouts, each drafted by `fedsense data init` and read to the last pixel."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from zoo.comparing import check_layout
from zoo.framework import Layout

MODULES = sorted(path.stem for path in (Path(__file__).parent / "layouts").glob("[a-z]*.py"))
LAYOUTS: list[Layout] = [layout for name in MODULES for layout in import_module(f"zoo.layouts.{name}").LAYOUTS]


def test_every_layout_has_a_name_of_its_own_and_cites_its_specification() -> None:
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
    assert all(layout.cites for layout in LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_layout_is_drafted_and_its_chips_hold_the_pixels_of_its_files(layout: Layout, tmp_path: Path) -> None:
    check_layout(layout, tmp_path)

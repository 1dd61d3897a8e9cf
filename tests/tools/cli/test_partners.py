from __future__ import annotations

import pytest

from fedsense_core.tools.onboarding.partners import partners


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (["a_10m.tif", "b_10m.tif"], ["b_20m.tif", "a_20m.tif"], ("{scene}_10m.tif", "{scene}_20m.tif")),
        (["s2/T18_0601_10m.tif"], ["s2/T18_0601_20m.tif"], ("s2/{scene}_10m.tif", "s2/{scene}_20m.tif")),
        (["x[1]_a.tif"], ["x[1]_b.tif"], ("{scene}_a.tif", "{scene}_b.tif")),
        (["a_10m.tif", "b_10m.tif"], ["a_20m.tif"], None),
        (["a_10m.tif", "b_10m.tif"], ["a_20m.tif", "c_20m.tif"], None),
        (["10m/a.tif"], ["20m/a.tif"], None),
        (["a.tif"], ["b.tif"], None),
        (["a_1.tif", "a_2.tif"], ["a_3.tif", "a_4.tif"], None),
    ],
)
def test_names_that_differ_in_their_last_part_pair(
    first: list[str], second: list[str], found: tuple[str, str] | None
) -> None:
    assert partners(first, second) == found

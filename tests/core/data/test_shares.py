"""One client's share: the parts of all clients make up the archive, and are found again without
looking at pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stored_chips import chips_of_array, pixels_of

from fedsense_core.config import PartitionSection
from fedsense_core.data.chips.chips import Chips, joined
from fedsense_core.data.partition.shares import client_names, share_of


def chips(name: str, n: int) -> Chips:
    values = np.random.default_rng(n).integers(1, 250, (n, 3, 8, 8), dtype=np.uint8)
    return chips_of_array(values, ("red", "green", "blue"), name)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_shares_hold_every_chip_once(kind: str, tmp_path: Path) -> None:
    sets = [chips("a", 20), chips("b", 31)]
    settings = PartitionSection(kind=kind, clients=3, clusters=4)  # type: ignore[arg-type]
    found: dict[str, list[bytes]] = {"a": [], "b": []}
    for client, name in enumerate(client_names(settings)):
        for part in share_of(sets, settings, 5, client, tmp_path / name):
            found[part.name] += [chip.tobytes() for chip in pixels_of(part)]
    assert {name: sorted(pixels) for name, pixels in found.items()} == {
        one.name: sorted(chip.tobytes() for chip in pixels_of(one)) for one in sets
    }


def test_a_share_is_kept_and_made_again_when_something_changed(tmp_path: Path) -> None:
    sets = [chips("a", 20)]
    settings = PartitionSection(kind="iid", clients=2)
    first = share_of(sets, settings, 0, 1, tmp_path)
    assert len(list(tmp_path.glob("share-*.npy"))) == 1
    (cached,) = tmp_path.glob("share-*.npy")
    cached.write_bytes(b"damaged")
    again = share_of(sets, settings, 0, 1, tmp_path)
    assert np.array_equal(pixels_of(first[0]), pixels_of(again[0]))
    assert not np.array_equal(pixels_of(first[0]), pixels_of(share_of(sets, settings, 1, 1, tmp_path)[0]))


def test_other_pixels_in_the_same_places_are_shared_out_anew(tmp_path: Path) -> None:
    settings = PartitionSection(kind="dirichlet", clients=2, clusters=4)
    for seed in (0, 1):
        values = np.random.default_rng(seed).integers(1, 250, (40, 3, 8, 8), dtype=np.uint8)
        share_of([chips_of_array(values, ("red", "green", "blue"), "a")], settings, 0, 1, tmp_path)
    assert len(list(tmp_path.glob("share-*.npy"))) == 2


def test_client_names_sort_in_their_order() -> None:
    names = client_names(PartitionSection(kind="iid", clients=120))
    assert names == sorted(names)


def test_joined_chips_are_standardised_as_they_were_apart() -> None:
    sets = [chips("a", 20).subset([3, 1, 7]), chips("b", 31).subset([30, 2])]
    whole = joined(sets, "both")
    apart = torch.cat([one.batch(range(len(one))) for one in sets])
    assert torch.equal(whole.batch(range(5)), apart)
    assert [whole.scene_paths[i] for i in whole.scene] == ["a"] * 3 + ["b"] * 2
    assert whole.statistics == tuple(one.statistics[0] for one in sets)

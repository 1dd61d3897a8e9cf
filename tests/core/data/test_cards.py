from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from fedsense_core.data.sites.cards import CARDS, MASKS
from fedsense_core.data.sites.schema import MaskRule
from fedsense_core.data.sites.sensors import Band, SensorCard, other_names, shipped_card
from fedsense_core.data.sites.site_file import MaskEntry
from fedsense_core.errors import SiteError

OPTICAL = sorted(name for name, card in CARDS.items() if card.get("kind") != "sar")
RADAR = sorted(CARDS.keys() - set(OPTICAL))


def card(**fields: Any) -> SensorCard:
    return SensorCard.model_validate({"gsd_m": 10.0, "bands": [{"name": "vv", "polarisation": "VV"}]} | fields)


@pytest.mark.parametrize("name", OPTICAL)
def test_every_optical_card_holds_red_green_blue_at_plausible_wavelengths(name: str) -> None:
    waves = {band.name: band.wavelength_um or 0.0 for band in shipped_card(name, "test").bands}
    assert waves["red"] > waves["green"] > waves["blue"]
    assert all(0.4 < wave < 2.5 for wave in waves.values())


def test_radar_cards_hold_both_polarisations_and_no_wavelength() -> None:
    assert RADAR == ["sentinel1-grd", "sentinel1-grd-db"]
    for name in RADAR:
        bands = shipped_card(name, "test").bands
        assert [(band.name, band.polarisation, band.wavelength_um) for band in bands] == [
            ("VV", "VV", None),
            ("VH", "VH", None),
        ]


def test_amplitudes_become_decibels_and_decibels_stay() -> None:
    raw, done = (shipped_card(name, "test") for name in RADAR)
    assert (raw.decibels, raw.nodata, raw.gsd_m) == ("amplitude", 0.0, 10.0)
    assert (done.decibels, done.nodata) == ("no", None)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_every_card_says_what_to_expect(name: str) -> None:
    low, high = shipped_card(name, "test").expected or (0, 0)
    assert low < high


@pytest.mark.parametrize("name", sorted(CARDS))
def test_the_baseline_offset_is_that_of_sentinel_2(name: str) -> None:
    assert shipped_card(name, "test").baseline_offset == (1000.0 if name.startswith("sentinel2") else None)


@pytest.mark.parametrize(
    ("name", "stored"), [("sentinel2-l2a", 3000), ("landsat8-l2", 18_000), ("landsat9-l1", 20_000)]
)
def test_a_bright_field_lies_within_what_is_expected(name: str, stored: int) -> None:
    one = shipped_card(name, "test")
    assert one.expected is not None
    assert one.expected[0] < stored * one.scale + one.offset < one.expected[1]
    assert stored > one.expected[1], "counts without scale must look wrong"


@pytest.mark.parametrize(
    ("name", "bands", "gsd_m", "scale"),
    [
        ("hls-l30", "B01 B02 B03 B04 B05 B06 B07 B09", 30, 1e-4),
        ("hls-s30", "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12", 30, 1e-4),
        ("planetscope-4", "blue green red nir", 3, 1e-4),
        ("planetscope-8", "coastal_blue blue green_i green yellow red rededge nir", 3, 1e-4),
        ("worldview2", "BAND_C BAND_B BAND_G BAND_Y BAND_R BAND_RE BAND_N BAND_N2", 1.84, 1),
        ("worldview3", "BAND_C BAND_B BAND_G BAND_Y BAND_R BAND_RE BAND_N BAND_N2", 1.24, 1),
        ("gaofen1", "blue green red nir", 8, 1),
        ("gaofen2", "blue green red nir", 4, 1),
        ("pleiades", "red green blue nir", 2, 1),
        ("spot67", "red green blue nir", 6, 1),
        ("rapideye", "blue green red red_edge_1 nir", 5, 1),
        ("naip", "red green blue nir", 0.6, 1),
    ],
)
def test_cards_of_products_have_their_files_order_and_units(name: str, bands: str, gsd_m: float, scale: float) -> None:
    """As HLS' user guide, Planet's PSScene and RapidEye assets, Maxar's IMD files, CRESDA, Airbus'
    DIMAP and NAIP's metadata list them."""
    one = shipped_card(name, "test")
    assert one.positions(bands.split(), "test") == tuple(range(len(one.bands)))
    assert (one.gsd_m, one.scale) == (gsd_m, scale)


def test_the_same_bands_of_different_sensors_meet_by_name() -> None:
    nir = {"landsat8-l2": 0.865, "hls-l30": 0.865, "planetscope-8": 0.865, "naip": 0.845, "worldview3": 0.8325}
    for name, wavelength_um in nir.items():
        (band,) = (band for band in shipped_card(name, "test").bands if band.name == "nir")
        assert band.wavelength_um == wavelength_um
    edges = [shipped_card(name, "test") for name in ("sentinel2-l2a", "hls-s30", "planetscope-8")]
    assert all("red_edge_1" in card.names for card in edges)


def test_nodata_in_one_band_is_enough_where_it_is_no_possible_measurement() -> None:
    some = {name for name in CARDS if shipped_card(name, "test").nodata_bands == "any"}
    assert some == {name for name in CARDS if name.startswith(("hls", "landsat", "modis-sr"))}


def test_expected_may_be_a_list_as_in_toml() -> None:
    assert card(kind="sar", expected=[-50, 10]).expected == card(kind="sar", expected=(-50.0, 10.0)).expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "band 'vv' of a card of kind 'optical' needs a wavelength_um"),
        ({"kind": "sar", "bands": [{"name": "red", "wavelength_um": 0.66}]}, "kind 'sar' needs a polarisation"),
        ({"kind": "sar", "bands": [{"name": "vv"}]}, "either wavelength_um .* or polarisation"),
        ({"kind": "sar", "bands": [{"name": "v", "polarisation": "VV", "wavelength_um": 0.6}]}, "either wavelength_um"),
        ({"kind": "sar", "bands": [{"name": "vv", "polarisation": "vv"}]}, "'VV', 'VH', 'HH' or 'HV'"),
        ({"kind": "sar", "expected": [10, -50]}, "the smaller one first"),
        ({"kind": "sar", "expected": [1.0]}, "expected"),
        ({"bands": [{"name": "red", "wavelength_um": 0.66}], "decibels": "power"}, "decibels = 'power' is for radar"),
        ({"kind": "sar", "decibels": "yes"}, "'no', 'amplitude' or 'power'"),
        (
            {"bands": [{"name": "a", "wavelength_um": 0.5}, {"name": "b", "wavelength_um": 0.6, "code": "a"}]},
            "band 'a' appears twice",
        ),
    ],
)
def test_a_contradictory_card_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        card(**fields)


def test_an_unknown_band_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(SiteError, match=r"no band 'swir1'.*Did you mean 'swir_1'"):
        shipped_card("landsat8-l1", "test").positions(["red", "swir1"], "here")


def test_the_site_file_knows_each_ready_made_mask() -> None:
    kinds = get_args(get_args(MaskEntry.model_fields["kind"].annotation)[0])
    assert set(kinds) == {*MASKS, "none"}


def test_ready_made_masks_drop_clouds_and_keep_snow_and_water() -> None:
    kinds = ("sentinel2-scl", "landsat-qa", "hls-fmask", "planet-udm2")
    scl, landsat, hls, planet = (MaskEntry(paths=["{scene}.tif"], kind=kind).rule for kind in kinds)
    assert scl == MaskRule(drop=(0, 1, 3, 8, 9, 10))
    assert landsat == MaskRule(drop_bits=(0, 1, 2, 3, 4))
    assert hls == MaskRule(drop=(255,), drop_bits=(1, 2, 3))
    assert planet == MaskRule(keep=(1,), band=1)


@pytest.mark.parametrize(
    ("kind", "dropped", "kept"),
    [
        ("landsat-c1-bqa", (1, 2800, 2976), (2720, 3744)),
        ("maja-clm", (0b1, 0b11, 0b101, 0b1001), (0, 1 << 6, 1 << 7)),
        ("force-qai", (0b1, 0b10, 0b100, 0b110, 0b1000), (0, 1 << 4, 1 << 5, 28672)),
    ],
)
def test_masks_of_other_processors_drop_clouds_and_shadows(
    kind: str, dropped: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    """As the format pages of MAJA (CLM) and FORCE (QAI) list their bits; of BQA, frequent values:
    fill, cloud, shadow; clear, snow (USGS, Landsat Collection 1 Level 1 Quality Assessment
    Band)."""
    bits = sum(1 << bit for bit in MaskEntry(paths=["{scene}.tif"], kind=kind).rule.drop_bits)
    assert all(value & bits for value in dropped)
    assert not any(value & bits for value in kept)


@pytest.mark.parametrize(
    ("card", "name", "band"),
    [
        ("sentinel2-l1c", "b1", "coastal"),
        ("sentinel2-l1c", "nir08", "nir_narrow"),
        ("sentinel2-l2a", "rededge3", "red_edge_3"),
        ("landsat8-l2", "nir08", "nir"),
        ("landsat5-l2", "swir16", "swir_1"),
    ],
)
def test_bands_have_the_names_that_files_give_them(card: str, name: str, band: str) -> None:
    """Files of SSL4EO-S12 are called B1.tif; assets of Earth Search and of the USGS' catalogue by
    the common names of STAC."""
    one = shipped_card(card, "test")
    assert one.names[other_names(one)[name]] == band
    assert not {label.lower() for known in one.bands for label in (known.name, known.code)} & other_names(one).keys()


def test_a_ready_made_mask_may_drop_more() -> None:
    assert MaskEntry(paths=["{scene}.tif"], kind="sentinel2-scl", drop=[11, 0]).rule.drop == (0, 1, 3, 8, 9, 10, 11)


def test_wavelength_in_nanometres_is_told_in_micrometres() -> None:
    with pytest.raises(ValueError, match=r"650 nm are 0\.65"):
        Band(name="red", wavelength_um=650.0)


def test_an_unpadded_code_is_not_taken_for_a_nearer_one() -> None:
    with pytest.raises(SiteError, match=r"nir \(B08\).*Did you mean 'B08'"):
        shipped_card("sentinel2-l2a", "here").only(["B8"], "here")

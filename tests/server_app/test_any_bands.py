"""A federation of sensors that share no list of bands: every parameter is aggregated, and any
sensor can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from federation import MASKED_VIT, SITES, Federation, same_bits, write_site
from flwr.app import Message
from judging import sent_by

from fedsense_core import load_encoder
from fedsense_core.config import resolve
from fedsense_core.data.chips.sensor_statistics import SensorStatistics, SharedStatistics
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.fingerprint import source_digest
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.messages import Handshake
from fedsense_core.protocol.side_channels import side_channels
from fedsense_core.tensors import TensorTable
from server_app.clients import Clients
from server_app.cohort import Cohort
from server_app.transport import Answer

SENSORS = {"alpha": ("aerial-rgb", 3), "beta": ("sentinel1-grd", 2), "gamma": ("landsat8-l1", 7)}
ANY = {"data.bands": "all"}


def write_sensors(root: Path, shared: bool = False) -> None:
    """Write three sites of three sensors, one of them radar, and a public set of two kinds."""
    sites = root / "sites"
    for seed, (name, (sensor, bands)) in enumerate(SENSORS.items()):
        path = sites / name / "scene.tif"
        path.parent.mkdir(parents=True)
        values = np.random.default_rng(seed).normal(size=(bands, 48, 48)).cumsum(1).cumsum(2)
        values = (40 + 200 * (values - values.min()) / np.ptp(values)).astype(np.uint8 if bands == 3 else np.uint16)
        with rasterio.open(path, "w", driver="GTiff", count=bands, width=48, height=48, dtype=values.dtype) as raster:
            raster.write(values)
        consent = f"share_statistics = {str(shared).lower()}\n"
        text = f'name = "{name}"\n{consent}[[sources]]\npaths = ["{name}/*.tif"]\nsensor = "{sensor}"\n'
        (sites / f"{name}.toml").write_text(text)
    write_site(root, "public", 99)
    source = f'[[sources]]\npaths = ["{sites / "gamma"}/*.tif"]\nsensor = "landsat8-l1"\n'
    (root / "public.toml").write_text((root / "public.toml").read_text() + source)


def federation(root: Path, shared: bool = False, **changes: Any) -> Federation:
    write_sensors(root, shared)
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return Federation(root, {**ANY, "run.rounds": 2, **dotted})


@pytest.mark.parametrize("changes", [{}, MASKED_VIT, {"distillation__kind": "public-ssl"}])
def test_every_parameter_learns_from_sites_without_a_common_band(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = federation(tmp_path, **changes)
    run.run()
    assert [line["accepted"] for line in run.lines()] == [list(SITES)] * 2
    table = TensorTable.of(build_model(run.config))
    first, last = table.read(build_model(run.config)), run.state().weights
    unmoved = [spec.name for spec, view in table.views(last - first) if not view.any()]
    # Masked images use no projector; everything else has moved.
    assert [name for name in unmoved if not name.startswith("projector")] == []


def test_the_export_reads_sensors_that_nobody_had(tmp_path: Path) -> None:
    encoder = federation(tmp_path).run().encoder
    for sensor, bands in (("sentinel2-l2a", 12), ("sentinel1-grd", 2), ("modis-rgb", 3)):
        features = load_encoder(encoder, sensor=sensor)(torch.randn(2, bands, 16, 16))
        assert features.shape == (2, 32)
        assert features.isfinite().all()


def test_statistics_travel_only_where_run_and_site_file_agree(tmp_path: Path) -> None:
    agreed = federation(tmp_path / "agreed", shared=True, data__share_statistics=True)
    agreed.run()
    assert set(agreed.state().statistics) == set(SITES)
    known = load_encoder(agreed.folder.encoder, sensor="sentinel1-grd")
    radar = open_chips(load_site(tmp_path / "agreed" / "sites" / "beta.toml"), "all", 16, None)
    assert torch.allclose(known.mean, radar.origin_mean[0])
    assert torch.allclose(known.std, radar.origin_std[0])
    for shared, asked in ((False, True), (True, False)):
        other = federation(tmp_path / f"{shared}-{asked}", shared=shared, data__share_statistics=asked, run__rounds=1)
        other.run()
        assert other.state().statistics == {}
        assert load_encoder(other.folder.encoder, sensor="sentinel1-grd").statistics_of is None


def test_imagery_shared_out_anew_trains_as_sites_do(tmp_path: Path) -> None:
    run = federation(tmp_path, partition__kind="iid", partition__clients=3)
    run.run()
    assert [line["accepted"] for line in run.lines()] == [["client-000", "client-001", "client-002"]] * 2


SHARED_OUT = {"partition__kind": "dirichlet", "partition__clients": 3, "partition__clusters": 3}


@pytest.mark.parametrize(
    "changes",
    [pytest.param(SHARED_OUT, marks=pytest.mark.slow), {**MASKED_VIT, "guidance__kind": "sam"}],
    ids=["shares", "sam"],
)
def test_killed_run_of_any_bands_continues_to_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    def die(task: Message, reply: Message | None) -> Message:
        raise KeyboardInterrupt

    whole = federation(tmp_path / "whole", shared=True, data__share_statistics=True, **changes)
    whole.run()
    killed = federation(tmp_path / "killed", shared=True, data__share_statistics=True, **changes)
    killed.grid.faults = {(2, killed.node("gamma")): die}
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = Federation(killed.root, killed.changes, first_node=900)
    again.run()
    assert same_bits(again.state().weights, whole.state().weights)
    exported = [json.loads((run.folder.encoder / "config.json").read_text()) for run in (again, whole)]
    assert exported[0] == exported[1]


def test_pixels_are_counted_once_whoever_has_a_share_of_them(tmp_path: Path) -> None:
    run = federation(tmp_path, shared=True, data__share_statistics=True, run__rounds=1, **SHARED_OUT)
    run.run()
    radar = [one.summary()["sentinel1-grd"] for one in run.state().statistics.values()]
    assert [one["count"] for one in radar] == [[48 * 48] * 2]


def test_site_that_shares_no_more_or_may_not_train_is_no_part_of_the_export(tmp_path: Path) -> None:
    run = federation(tmp_path, shared=True, data__share_statistics=True)
    run.run()
    state = run.state()
    assert set(state.statistics) == set(SITES)
    for only, left in (("", {"alpha", "gamma"}), ("gamma", {"gamma"})):
        config = resolve({**run.run_config, "federation.only": only})
        channels = side_channels(config)
        channels[0].load_state_dict(state.state["sensor-statistics"])
        cohort = Cohort(config, state.run_id, Clients(), channels)
        for node, site in enumerate(SITES):
            shown = state.statistics[site] if site != "beta" else SensorStatistics()
            shared = {"sensor-statistics": shown.to_bytes()}
            cohort.nonces[node] = b"secret"
            handshake = Handshake(site, 9, code=source_digest(), attachments=shared, nonce=b"secret")
            cohort._enter(Answer(node, sent_by(node, Message(handshake.to_records(), 1, "query"))))
        assert isinstance(channels[0], SharedStatistics)
        assert set(channels[0].by_site) == left


def test_site_with_nothing_usable_keeps_nobody_from_the_report(tmp_path: Path) -> None:
    run = federation(tmp_path, run__rounds=1, run__report=True, federation__min_clients=2)
    (tmp_path / "sites" / "beta" / "scene.tif").write_bytes(b"no raster")
    run.run()
    assert run.lines()[0]["accepted"] == ["alpha", "gamma"]
    assert (run.folder.path / "report.html").is_file()


def test_a_sensor_to_each_client(tmp_path: Path) -> None:
    run = federation(tmp_path, partition__kind="sensor", partition__clients=3, partition__block_pixels=16)
    run.run()
    assert all(len(line["accepted"]) == 3 for line in run.lines())

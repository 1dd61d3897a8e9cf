"""What the imagery of each sensor is like, band by band: merged over institutions that agree, and
exported with the model.

Each band has statistics of its own, because institutions hold different bands of a sensor.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from fedsense_core.config import Config
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.statistics import Statistics
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.schema import Site, Source
from fedsense_core.data.sites.sensors import shipped_card
from fedsense_core.protocol.side_channels import SideChannel
from fedsense_core.state import State, as_bytes, as_tensor

MOST_BYTES = 64 << 20
"""Largest text of statistics that is read from another party."""
MOST_VALUES = 10_000
"""Largest number of JSON values in it, a dozen a band: each may take a hundred times its text in
memory."""


@dataclass(frozen=True)
class SensorStatistics:
    """Statistics by shipped sensor card and band name, each of one band, in the card's stored
    units."""

    sensors: Mapping[str, Mapping[str, Statistics]] = field(default_factory=dict)

    @classmethod
    def of(cls, sets: Iterable[Chips], sites: Iterable[Site] = ()) -> SensorStatistics:
        """Return the statistics of chips that were cut from ``sites``.

        Left out are custom cards, whose names do not mean the same to all, and sensors of
        which a site holds files in other units than the card's: their numbers would be merged with
        counts.
        """
        total, odd = cls(), {source.sensor for site in sites for source in site.sources if _has_own_units(source)}
        for chips in sets:
            for sensor, statistics in zip(chips.sensor, chips.statistics, strict=True):
                if sensor in CARDS and sensor not in odd and statistics.count:
                    bands = {name: statistics.band(i) for i, name in enumerate(chips.bands)}
                    total = total.merge(cls({sensor: bands}))
        return total

    def merge(self, other: SensorStatistics) -> SensorStatistics:
        """Return the statistics of the pixels of both; the same in any order and grouping, bit for
        bit."""
        sensors = {name: dict(bands) for name, bands in self.sensors.items()}
        for name, bands in other.sensors.items():
            mine = sensors.setdefault(name, {})
            for band, statistics in bands.items():
                mine[band] = mine[band].merge(statistics) if band in mine else statistics
        return SensorStatistics(sensors)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return by sensor the lists ``bands`` (in the card's order), ``mean``, ``std``, ``p2``,
        ``p98``, ``count``."""
        return {name: _summary(name, self.sensors[name]) for name in sorted(self.sensors)}

    def to_bytes(self) -> bytes:
        """Return compressed JSON from which `from_bytes` makes an equal object; nothing at all for
        no statistics."""
        if not self.sensors:
            return b""
        fields = {
            name: {band: statistics.to_json() for band, statistics in sorted(bands.items())}
            for name, bands in sorted(self.sensors.items())
        }
        return zlib.compress(json.dumps(fields, sort_keys=True).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> SensorStatistics:
        """Read what `to_bytes` wrote, whoever sent it. Raises ValueError for anything else."""
        if not data:
            return cls()
        engine = zlib.decompressobj()
        try:
            text = engine.decompress(data, MOST_BYTES)
            # Counted before they are made. Every value but the first comes after one of these.
            if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES} values")
            fields = json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise ValueError(f"statistics are not compressed JSON ({error})") from None
        if not engine.eof or not isinstance(fields, dict) or not all(isinstance(one, dict) for one in fields.values()):
            raise ValueError("statistics are a table of sensors and bands, no longer than they say")
        return cls({str(name): _bands_of(str(name), bands) for name, bands in fields.items()})


class SharedStatistics(SideChannel):
    """Statistics that sites share with their handshake (``data.share_statistics``), by site: one
    that comes again is not counted twice."""

    name = "sensor-statistics"
    carried_by = "handshake"
    limit = MOST_BYTES

    def __init__(self, config: Config) -> None:
        self.most_chips, self.chip_pixels = config.admission.max_chips, config.data.chip_size**2
        # In a study the first client speaks for all: its own chips are a share of those.
        self.speaks_for_itself = config.partition.kind == "sites"
        self.by_site: dict[str, SensorStatistics] = {}

    @property
    def merged(self) -> SensorStatistics:
        """Those of all sites together."""
        return reduce(SensorStatistics.merge, self.by_site.values(), SensorStatistics())

    def judge(self, attachment: bytes, examples: float) -> SensorStatistics:
        """Read the statistics of a site of so many chips (``examples``), whoever sent them.

        Raises ValueError for anything else, for more pixels than the chips have, or as many as
        ``admission.max_chips`` have, and for a mean that the sensor does not measure.
        """
        said = SensorStatistics.from_bytes(attachment)
        chips = min(examples, self.most_chips) if self.speaks_for_itself else self.most_chips
        for sensor, bands in said.sensors.items():
            for band, statistics in bands.items():
                if statistics.count > chips * self.chip_pixels:
                    raise ValueError(
                        f"statistics of {sensor} {band} are of {statistics.count} pixels; {chips:g} chips of "
                        f"{self.chip_pixels} pixels have fewer (admission.max_chips is {self.most_chips})"
                    )
                _check_mean(sensor, band, float(statistics.mean[0]))
        return said

    def accept(self, judged: Mapping[str, SensorStatistics]) -> None:
        """Take what a site says now; a site that says nothing any more is forgotten."""
        for site, statistics in judged.items():
            self.drop(site)
            if statistics.sensors:
                self.by_site[site] = statistics

    def drop(self, site: str) -> None:
        """Forget the statistics of a site."""
        self.by_site.pop(site, None)

    def state_dict(self) -> State:
        """Return the statistics by site, each as bytes."""
        return {site: as_tensor(statistics.to_bytes()) for site, statistics in self.by_site.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the statistics of a checkpoint."""
        self.by_site = {site: SensorStatistics.from_bytes(as_bytes(tensor)) for site, tensor in state.items()}


def _bands_of(sensor: str, fields: Mapping[str, Any]) -> dict[str, Statistics]:
    if sensor not in CARDS:
        raise ValueError(f"no sensor card has the name {sensor[:64]!r}")
    known = shipped_card(sensor, "statistics").names
    unknown = [band for band in fields if band not in known]
    if unknown:
        raise ValueError(f"{sensor} has no band {unknown[0][:64]!r}")
    # Before they are unpacked: of 64 bands each, those of one handshake would take gigabytes.
    if any(isinstance(one, dict) and (one.get("bands") != 1 or not one.get("count")) for one in fields.values()):
        raise ValueError(f"statistics of {sensor} must be of one band each, and of at least one pixel")
    return {band: Statistics.from_json(one) for band, one in fields.items()}


def _check_mean(sensor: str, band: str, stored: float) -> None:
    """Raise ValueError for a mean, in stored units, that lies farther outside of what the card
    expects than this is wide."""
    card = shipped_card(sensor, "statistics")
    if card.expected is None:
        return
    low, high = card.expected
    mean = stored * card.scale + card.offset
    if not 2 * low - high <= mean <= 2 * high - low:
        raise ValueError(
            f"statistics of {sensor} {band} have a mean of {mean:.4g}; its values lie between {low:g} and {high:g}: "
            "is the card of the site file right? `fedsense data check` shows it"
        )


def _has_own_units(source: Source) -> bool:
    if source.sensor not in CARDS:
        return False
    card = shipped_card(source.sensor, "statistics")
    return (source.card.scale, source.card.offset) != (card.scale, card.offset)


def _summary(sensor: str, bands: Mapping[str, Statistics]) -> dict[str, Any]:
    names = [name for name in shipped_card(sensor, "statistics").names if name in bands]
    each = [bands[name].summary() for name in names]
    lists = {key: [one[key][0] for one in each] for key in ("mean", "std", "p2", "p98")}
    return {"bands": names, **lists, "count": [one["count"] for one in each]}

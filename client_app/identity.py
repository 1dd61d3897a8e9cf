"""Who a client is: its site files and its state folder, from Flower's node configuration.

In a deployment ``--node-config 'site="/data/site.toml" state-dir="/var/lib/fedsense"'`` names both.
In a simulation ``partition-id`` picks one of the federation's site files, and state goes into the
run folder.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from flwr.app import Context

from client_app.allowance import Allowance, state_root
from client_app.progress import ChippingLog
from fedsense_core.config import Config
from fedsense_core.data.chips.chips import Chips, joined
from fedsense_core.data.chips.fills import warnings_of
from fedsense_core.data.chips.sensor_statistics import SensorStatistics
from fedsense_core.data.opening import load_site, open_site
from fedsense_core.data.partition.shares import client_names, share_of
from fedsense_core.data.raster.offsets import offsets_of, unknown_baselines
from fedsense_core.data.sites.locations import site_files
from fedsense_core.data.sites.side_masks import side_mask_warnings
from fedsense_core.data.sites.site_file import stated_name
from fedsense_core.errors import SiteError
from fedsense_core.full_disk import naming_full_disk
from fedsense_core.run_folder.paths import run_folder, safe_name

POOLED = "pooled"
SCENES_LOOKED_AT = 200
"""Scenes of a site whose headers are read again, for what they say of offsets."""


@dataclass(frozen=True)
class Identity:
    """One client's name and files."""

    name: str
    """Site name, or ``pooled`` where one client opens every site."""
    sites: tuple[Path, ...]
    state_dir: Path
    client: int | None = None
    """Number of the client whose share of all imagery this is, in a study; None where sites are not
    shared out."""
    simulated: bool = False
    """Whether all sites are on one machine, so that nothing leaves any."""
    allowance: Allowance = field(default_factory=Allowance, compare=False, repr=False)
    """What the institution's policy leaves to the message that is answered."""

    @classmethod
    def of(cls, context: Context, config: Config) -> Identity:
        """Find out who this client is. Raises SiteError where nothing says so."""
        node = context.node_config
        if "site" in node:
            if config.federation.pooled:
                raise SiteError("federation.pooled opens every site at one client: it works in a simulation only")
            if config.partition.kind != "sites":
                raise SiteError(
                    f"partition.kind = {config.partition.kind!r} shares all imagery out anew: in a simulation only"
                )
            path = Path(str(node["site"])).expanduser()
            name = load_site(path).name
            return cls(name, (path,), state_root(context) / safe_name(name))
        if "partition-id" not in node:
            raise SiteError(
                "this SuperNode names no site: start it with --node-config "
                '\'site="/path/to/site.toml" state-dir="/path/to/state"\''
            )
        return cls._simulated(int(node["partition-id"]), config)

    def under(self, allowance: Allowance) -> Identity:
        """Return the same, watched by an allowance."""
        return replace(self, allowance=allowance)

    @staticmethod
    def name_of(context: Context, config: Config) -> str:
        """Return the name of a client even where the rest of it is wrong; empty where nothing
        gives it one."""
        node = context.node_config
        if "site" in node:
            return stated_name(Path(str(node["site"])).expanduser())
        partition = int(node.get("partition-id", -1))
        if config.federation.pooled:
            return "" if partition else POOLED
        if config.partition.kind != "sites":
            return "".join(client_names(config.partition)[partition : partition + 1])
        return "".join(map(stated_name, site_files(config)[partition : partition + 1]))

    @classmethod
    def _simulated(cls, partition: int, config: Config) -> Identity:
        files = site_files(config)
        clients = run_folder(config) / "clients"
        if config.federation.pooled:
            if partition:
                raise SiteError(
                    "federation.pooled gives all imagery to the first SuperNode; this one has nothing to do"
                )
            return cls(POOLED, tuple(files), clients / POOLED, simulated=True)
        if config.partition.kind != "sites":
            names = client_names(config.partition)
            if partition >= len(names):
                raise SiteError(f"SuperNode {partition} has no share: partition.clients is {len(names)}")
            return cls(names[partition], tuple(files), clients / names[partition], partition, simulated=True)
        if partition >= len(files):
            raise SiteError(f"SuperNode {partition} has no site file: the federation has {len(files)}")
        name = load_site(files[partition]).name
        return cls(name, (files[partition],), clients / safe_name(name), simulated=True)

    def earlier_state(self, config: Config) -> Path:
        """Return where the run that this one goes on from keeps this client's state: a simulation
        in its own folder, an institution where it always does."""
        simulated = Path(config.run.continued_from) / "clients" / self.state_dir.name
        return simulated if self.simulated else self.state_dir

    def naming_full_disk(self) -> AbstractContextManager[None]:
        """Name the state folder, and what moves it, where its disk is full."""
        at_home = "state-dir of the SuperNode's --node-config (--state of `fedsense institution`)"
        moved_by = "run.folder (--out)" if self.simulated else at_home
        return naming_full_disk(self.state_dir, moved_by, "folders run-* of runs that are over")

    def open(self, config: Config) -> tuple[tuple[Chips, ...], ...]:
        """Open the chips of every site of this client, each kind apart, from the cache where
        nothing changed."""
        imagery = self._imagery(config)
        if self.client is None:
            return imagery
        kinds = [chips for kinds in imagery for chips in kinds]
        mine = share_of(kinds, config.partition, config.run.seed, self.client, self.state_dir)
        # Together where the model sees no difference: a client's share of one site may be smaller
        # than a batch.
        alike: dict[object, list[Chips]] = {}
        for chips in mine:
            alike.setdefault(chips.spectrum if config.conditioned else chips.bands, []).append(chips)
        return (tuple(joined(sets, self.name) for sets in alike.values()),)

    def statistics(self, config: Config) -> SensorStatistics:
        """Return those of the imagery, where the run asks for them and every site file here allows
        it; else none.

        In a study the first client speaks for all: statistics are of whole sources, of which each
        has a share.
        """
        sites = [load_site(path) for path in self.sites]
        agreed = config.data.share_statistics and all(site.share_statistics for site in sites)
        agreed = agreed and self.allowance.policy.sharing.statistics
        if not agreed or self.client not in (None, 0):
            return SensorStatistics()
        return SensorStatistics.of([chips for kinds in self._imagery(config) for chips in kinds], sites)

    @property
    def tells_overlap(self) -> bool:
        """Whether the server may know which share of the imagery is also in its own sets."""
        return self.simulated or all(load_site(path).share_overlap for path in self.sites)

    def warnings(self, config: Config) -> list[str]:
        """Return what looks wrong about the imagery's values, masks and offsets. In a study the
        first client speaks for all."""
        if self.client not in (None, 0):
            return []
        found: list[str] = []
        for path, kinds in zip(self.sites, self._imagery(config), strict=True):
            site = load_site(path)
            scenes = [scene for chips in kinds for scene in chips.scene_paths]
            some = scenes[:: -(-len(scenes) // SCENES_LOOKED_AT)]
            found += [*warnings_of(kinds, site), *side_mask_warnings(site)]
            for source in site.sources:
                bands = source.card.names if config.data.bands == "all" else config.data.bands
                found += unknown_baselines(offsets_of(source, some, bands))
        return found

    def _imagery(self, config: Config) -> tuple[tuple[Chips, ...], ...]:
        """Return all chips of every site file, whether or not they are this client's alone."""
        folders = [self.state_dir for _ in self.sites]
        if self.client is not None:
            folders = [self.state_dir.parent / safe_name(load_site(path).name) for path in self.sites]
        log = ChippingLog(self.name, lambda: self.allowance.check_cutting(self.state_dir))
        opened = [
            open_site(path, config, folder / "chips", log) for path, folder in zip(self.sites, folders, strict=True)
        ]
        return tuple(opened)

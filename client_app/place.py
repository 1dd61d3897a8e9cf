"""Where a client stands: its site files and its state folder, from Flower's node configuration.

In a deployment ``--node-config 'site="/data/site.toml" state-dir="/var/lib/fedsense"'`` names both. In a simulation
``partition-id`` picks one of the federation's site files, and state goes into the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from fedsense_core.data import Chips, load_site, open_chips
from fedsense_core.errors import SiteError
from fedsense_core.places import run_folder, safe_name, site_files
from fedsense_core.settings import Config

POOLED = "pooled"


@dataclass(frozen=True)
class Place:
    """One client's name and files."""

    name: str
    """Site name, or ``pooled`` where one client opens every site."""
    sites: tuple[Path, ...]
    state_dir: Path

    @classmethod
    def of(cls, context: Context, config: Config) -> Place:
        """Find this client's place. Raises SiteError where it has none."""
        node = context.node_config
        if "site" in node:
            if config.federation.pooled:
                raise SiteError("federation.pooled opens every site in one place: it works in a simulation only")
            path = Path(str(node["site"])).expanduser()
            state = Path(str(node.get("state-dir", Path.home() / ".fedsense" / "state"))).expanduser()
            name = load_site(path).name
            return cls(name, (path,), state / safe_name(name))
        if "partition-id" not in node:
            raise SiteError(
                "this SuperNode names no site: start it with --node-config "
                '\'site="/path/to/site.toml" state-dir="/path/to/state"\''
            )
        return cls._simulated(int(node["partition-id"]), config)

    @classmethod
    def _simulated(cls, partition: int, config: Config) -> Place:
        files = site_files(config)
        clients = run_folder(config) / "clients"
        if config.federation.pooled:
            if partition:
                raise SiteError(
                    "federation.pooled gives all imagery to the first SuperNode; this one has nothing to do"
                )
            return cls(POOLED, tuple(files), clients / POOLED)
        if partition >= len(files):
            raise SiteError(f"SuperNode {partition} has no site file: the federation has {len(files)}")
        name = load_site(files[partition]).name
        return cls(name, (files[partition],), clients / safe_name(name))

    def open(self, config: Config) -> tuple[Chips, ...]:
        """Open the chips of every site of this place, from the cache where nothing changed."""
        bands, size = config.data.bands, config.data.chip_size
        return tuple(open_chips(load_site(path), bands, size, self.state_dir / "chips") for path in self.sites)

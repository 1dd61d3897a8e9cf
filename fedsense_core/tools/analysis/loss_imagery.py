"""The images over which a finished run is analysed: the clients' own in a simulation, the public
ones elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from fedsense_core.config import Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.batches.feeding import draws
from fedsense_core.data.chips.chips import Chips, joined
from fedsense_core.data.opening import load_site, open_site
from fedsense_core.data.partition.shares import client_names, share_of
from fedsense_core.data.sites.locations import public_file, site_files
from fedsense_core.errors import SiteError
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.seeds import seed_of

PUBLIC = "public"
POOLED = "pooled"
"""Folder of the one client that opens every site."""

ChipsByClient = Mapping[str, Sequence[Chips]]
"""Kinds of chips of each client, by its name."""


def imagery_of(config: Config, run: RunFolder) -> tuple[ChipsByClient, bool]:
    """Return what to analyse the run on, and whether it is the clients' own imagery.

    In a simulation that is the imagery of every site of the configuration, also of those that a
    method left out (``standalone``) or pooled, so that the loss is the same function whatever the
    method; where imagery was shared out anew, each client's share. In a deployment no client's
    imagery is here: it is the public set. Raises SiteError where imagery that was trained on cannot
    be opened.
    """
    clients = run.path / "clients"
    if not clients.is_dir():
        return {PUBLIC: open_site(public_file(config), config, run.path / "cache")}, False
    sites = _sites(config, run, clients)
    return (sites if config.partition.kind == "sites" else _shares(config, sites, clients)), True


def batches_of(imagery: ChipsByClient, config: Config, per_client: int, seed: int) -> dict[str, list[Batch]]:
    """Return ``per_client`` batches of each client; which chips they hold depends on its name and
    on ``seed`` alone."""
    drawn = {}
    for name, kinds in imagery.items():
        generator = torch.Generator().manual_seed(seed_of("analysis", seed, name, "batches"))
        order = islice(draws([kinds], config.train.batch_size, generator), per_client)
        drawn[name] = [Batch(chips.batch(index), chips.spectrum) for chips, index in order]
    return drawn


def _sites(config: Config, run: RunFolder, clients: Path) -> dict[str, Sequence[Chips]]:
    trained = {site for line in run.read_metrics() for site in line.get("accepted") or ()}
    imagery: dict[str, Sequence[Chips]] = {}
    for path in site_files(config):
        name = load_site(path).name
        folder = clients / (POOLED if config.federation.pooled else safe_name(name)) / "chips"
        try:
            imagery[name] = open_site(path, config, folder)
        except SiteError:
            # A site with nothing usable took no part; the round's record says why.
            if name in trained or POOLED in trained or config.partition.kind != "sites":
                raise
    if not imagery:
        raise SiteError(f"no site of federation.sites = {config.federation.sites!r} has usable imagery any more")
    return imagery


def _shares(config: Config, sites: ChipsByClient, clients: Path) -> dict[str, Sequence[Chips]]:
    """Return each client's share, as it was trained on."""
    everything = [chips for kinds in sites.values() for chips in kinds]
    imagery: dict[str, Sequence[Chips]] = {}
    for number, name in enumerate(client_names(config.partition)):
        mine = share_of(everything, config.partition, config.run.seed, number, clients / name)
        alike: dict[object, list[Chips]] = {}
        for chips in mine:
            alike.setdefault(chips.spectrum if config.conditioned else chips.bands, []).append(chips)
        imagery[name] = [joined(sets, name) for sets in alike.values()]
    return imagery

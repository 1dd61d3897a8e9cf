"""The pictures of a report, made from a run's folder where its imagery is at hand.

An institution's chips are shown in a simulation only, where they lie in the run folder; a
coordinator never has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from fedsense_core.config import Config
from fedsense_core.data.batches.batch import Batch
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.labelled import LabelledSet, load_labelled
from fedsense_core.data.opening import load_site, open_site
from fedsense_core.data.sites.locations import labelled_folder, public_file, site_files
from fedsense_core.errors import SiteError
from fedsense_core.models.pretraining import PretrainingModel
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.seeds import seed_of
from fedsense_core.tools.reporting.final_model import FinalModel, final_model
from fedsense_core.tools.reporting.pictures import View, chip_sheet, nearest_neighbours, pca_rgb, reconstructions
from fedsense_core.tools.reporting.tiles import ReportPictures, Row

SHOWN = 6
"""Chips in a row or column of pictures."""
CANDIDATES = 400
"""Labelled chips among which neighbours are looked for."""


def draw(config: Config, run: RunFolder) -> ReportPictures:
    """Return all pictures of a finished run.

    Raises SiteError where its imagery is not at hand, CheckpointError where no model is left of it.
    """
    model = final_model(config, run)
    public = open_site(public_file(config), config, run.path / "cache")
    view = View(size=config.data.view_size, device=str(model.device))
    most = max(public, key=len)
    shown = _spread(most, SHOWN)
    folder = labelled_folder(config)
    # With its colours, however the probes standardise it: people look at it.
    neighbours = _neighbours(model, load_labelled(folder, config.data.bands, "set"), view) if folder else ()
    return ReportPictures(
        chips=_sheet(_institutions(config, run) | {"public": public}),
        neighbours=neighbours,
        pca=pca_rgb(model.encoder_for(most.spectrum), shown.pixels, replace(view, bands=most.bands)),
        reconstructions=_reconstructions(config, model.whole, shown),
    )


def _sheet(imagery: Mapping[str, Sequence[Chips]]) -> tuple[Row, ...]:
    """Return a row of chips for each institution, or for each kind of its chips where it has
    several."""
    rows: list[Row] = []
    for name, kinds in imagery.items():
        for chips in kinds:
            title = f"{name}, {chips.sensor[0]}" if len(kinds) > 1 else name
            rows += chip_sheet({title: _spread(chips, 2 * SHOWN).pixels}, chips.bands)
    return tuple(rows)


def _spread(chips: Chips, count: int) -> Batch:
    """Return some chips from the first to the last."""
    return Batch(chips.batch(torch.linspace(0, len(chips) - 1, min(count, len(chips))).long()), chips.spectrum)


def _institutions(config: Config, run: RunFolder) -> dict[str, Sequence[Chips]]:
    """Return the chips of each site that ran in this very folder."""
    clients = run.path / "clients"
    if not clients.is_dir():
        return {}
    found: dict[str, Sequence[Chips]] = {}
    for path in site_files(config):
        name = load_site(path).name
        cache = clients / safe_name(name) / "chips"
        if cache.is_dir():
            with suppress(SiteError):  # a site with nothing usable took no part; the round's record says why
                found[name] = open_site(path, config, cache)
    return found


def _neighbours(model: FinalModel, labelled: LabelledSet, view: View) -> tuple[Row, ...]:
    rows = torch.linspace(0, len(labelled.test) - 1, min(CANDIDATES, len(labelled.test))).long()
    names = [labelled.classes[int(label)] for label in labelled.test.labels[rows]]
    encoder, view = model.encoder_for(labelled.spectrum), replace(view, bands=labelled.bands)
    return nearest_neighbours(encoder, labelled.test.values[rows], names, labelled.test.groups[rows], view)


def _reconstructions(config: Config, model: PretrainingModel | None, chips: Batch) -> tuple[Row, ...]:
    """Return what the masked-image decoder predicts; nothing for recipes without one."""
    if model is None or model.masked is None:
        return ()
    size, device = config.data.view_size, next(model.parameters()).device
    model.read_bands(chips.bands)
    x_BCHW = torch.nn.functional.interpolate(chips.pixels, size=(size, size), mode="bilinear", antialias=True).to(
        device
    )
    mask_BN = model.masked.draw_mask(x_BCHW, torch.Generator().manual_seed(seed_of(config.run.seed, "pictures")))
    with torch.no_grad():
        predicted = model.masked.reconstruct(model.encoder, x_BCHW, mask_BN)
    side = size // model.masked.cell
    mask_BHW = mask_BN.view(-1, side, side).repeat_interleave(model.masked.cell, 1)
    return reconstructions(
        x_BCHW, mask_BHW.repeat_interleave(model.masked.cell, 2), predicted, [band.name for band in chips.bands]
    )

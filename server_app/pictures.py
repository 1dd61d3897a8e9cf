"""The pictures of a report, made where the encoder and the imagery are.

An institution's chips are shown in a simulation only, where they lie in the run folder; a coordinator never has them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedsense_core.data import Chips, LabelledSet, load_labelled, load_site, open_chips
from fedsense_core.models import PretrainingModel
from fedsense_core.places import labelled_folder, safe_name, site_files
from fedsense_core.reporting import RunFolder
from fedsense_core.reporting.pictures import View, chip_sheet, nearest_neighbours, pca_rgb, reconstructions
from fedsense_core.reporting.tiles import ReportPictures, Row
from fedsense_core.seeds import seed_of
from fedsense_core.settings import Config

SHOWN = 6
"""Chips in a row or column of pictures."""
CANDIDATES = 400
"""Labelled chips among which neighbours are looked for."""


def draw(config: Config, run: RunFolder, model: PretrainingModel, public: Chips) -> ReportPictures:
    """Return all pictures of a run; ``model`` holds the final weights."""
    device = str(next(model.parameters()).device)
    view = View(size=config.data.view_size, device=device, bands=config.data.bands)
    shown = public.batch(torch.linspace(0, len(public) - 1, SHOWN).long())
    folder = labelled_folder(config)
    # With its colours, however the probes standardise it: people look at it.
    neighbours = _neighbours(model, load_labelled(folder, config.data.bands, "set"), view) if folder else ()
    return ReportPictures(
        chips=chip_sheet(_institutions(config, run) | {"public": shown}, config.data.bands),
        neighbours=neighbours,
        pca=pca_rgb(model.encoder, shown, view),
        reconstructions=_reconstructions(config, model, shown),
    )


def _institutions(config: Config, run: RunFolder) -> dict[str, Tensor]:
    """Return a few chips of each site that ran in this very folder."""
    clients = run.path / "clients"
    if not clients.is_dir():
        return {}
    shown = {}
    for path in site_files(config):
        site = load_site(path)
        cache = clients / safe_name(site.name) / "chips"
        if cache.is_dir():
            chips = open_chips(site, config.data.bands, config.data.chip_size, cache)
            shown[site.name] = chips.batch(torch.linspace(0, len(chips) - 1, 2 * SHOWN).long())
    return shown


def _neighbours(model: PretrainingModel, labelled: LabelledSet, view: View) -> tuple[Row, ...]:
    rows = torch.linspace(0, len(labelled.test) - 1, min(CANDIDATES, len(labelled.test))).long()
    names = [labelled.classes[int(label)] for label in labelled.test.labels[rows]]
    return nearest_neighbours(model.encoder, labelled.test.values[rows], names, labelled.test.groups[rows], view)


def _reconstructions(config: Config, model: PretrainingModel, chips: Tensor) -> tuple[Row, ...]:
    """Return what the masked-image decoder predicts; nothing for recipes without one."""
    if model.masked is None:
        return ()
    size, device = config.data.view_size, next(model.parameters()).device
    x_BCHW = torch.nn.functional.interpolate(chips, size=(size, size), mode="bilinear", antialias=True).to(device)
    mask_BN = model.masked.draw_mask(x_BCHW, torch.Generator().manual_seed(seed_of(config.run.seed, "pictures")))
    with torch.no_grad():
        predicted = model.masked.reconstruct(model.encoder, x_BCHW, mask_BN)
    side = size // model.masked.cell
    mask_BHW = mask_BN.view(-1, side, side).repeat_interleave(model.masked.cell, 1)
    return reconstructions(x_BCHW, mask_BHW.repeat_interleave(model.masked.cell, 2), predicted, config.data.bands)

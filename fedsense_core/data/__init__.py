"""An institution's imagery: site files, sensor cards, chips, augmentation, and the sample that
ships with FedSense."""

from fedsense_core.data.batches.augment import Augmentation, augment
from fedsense_core.data.batches.batch import Batch, epoch_batches
from fedsense_core.data.batches.feeding import Feed, batches_of, draws
from fedsense_core.data.chips.chips import Chips
from fedsense_core.data.chips.labelled import LabelledSet, LabelledSplit, load_labelled
from fedsense_core.data.chips.opening import open_chips, open_sources
from fedsense_core.data.raster.rasters import Skipped
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.sample import sample_folder, sample_labelled, sample_public, sample_sites
from fedsense_core.data.sites.schema import Layer, Scene, Site, Source
from fedsense_core.data.sites.sensors import Band, SensorCard, shipped_card
from fedsense_core.data.sites.site_file import load_site

__all__ = [
    "Augmentation",
    "Band",
    "Batch",
    "Chips",
    "Feed",
    "LabelledSet",
    "LabelledSplit",
    "Layer",
    "ReadLimits",
    "Scene",
    "SensorCard",
    "Site",
    "Skipped",
    "Source",
    "augment",
    "batches_of",
    "draws",
    "epoch_batches",
    "load_labelled",
    "load_site",
    "open_chips",
    "open_sources",
    "sample_folder",
    "sample_labelled",
    "sample_public",
    "sample_sites",
    "shipped_card",
]

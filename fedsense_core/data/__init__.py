"""An institution's imagery: site files, sensor cards, chips, augmentation, and the sample that ships with FedSense."""

from fedsense_core.data.augment import Augmentation, augment
from fedsense_core.data.batches import Batch, epoch_batches
from fedsense_core.data.chips import Chips
from fedsense_core.data.feeding import Feed, batches_of, draws
from fedsense_core.data.holdings import Layer, Scene, Site, Source
from fedsense_core.data.labelled import LabelledSet, LabelledSplit, load_labelled
from fedsense_core.data.limits import ReadLimits
from fedsense_core.data.opening import open_chips, open_sources
from fedsense_core.data.rasters import Skipped
from fedsense_core.data.sample import sample_folder, sample_labelled, sample_public, sample_sites
from fedsense_core.data.sensors import Band, SensorCard, shipped_card
from fedsense_core.data.site import load_site

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

"""An institution's imagery: site files, sensor cards, chips and batches.

Only names that need neither torch nor rasterio are found here; import the others from the modules
that define them.
"""

from fedsense_core.data.sites.sensors import Band, SensorCard, shipped_card

__all__ = ["Band", "SensorCard", "shipped_card"]

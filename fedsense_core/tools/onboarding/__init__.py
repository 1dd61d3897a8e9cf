"""From a folder of rasters to a checked site file."""

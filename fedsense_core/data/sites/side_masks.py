"""Masks beside rasters, as GDAL writes them (`image.tif.msk`): side files, which no reader here
follows unless the site file names them."""

from __future__ import annotations

from pathlib import Path

from fedsense_core.data.sites.schema import Site, Source

SUFFIX = ".msk"
"""GDAL's, after the raster's whole name; a TIFF that is 0 where there is no measurement."""


def side_mask_warnings(site: Site) -> list[str]:
    """Return the same of every source, each beginning with its sensor."""
    return [f"{source.sensor}: {text}" for source in site.sources for text in unread_side_masks(source)]


def unread_side_masks(source: Source) -> list[str]:
    """Name a source's mask files that are not read, in one sentence with the remedy; nothing where
    there are none."""
    read = {scene.mask for scene in source.scenes if source.mask}
    beside = [Path(f"{layer.path}{SUFFIX}") for scene in source.scenes for layer in scene.layers]
    unread = [path for path in beside if path not in read and path.is_file()]
    if not unread:
        return []
    name = unread[0].name
    glob = "{scene}" + "".join(unread[0].suffixes[-2:])
    keys = "`drop = [0]`" if len(unread) == len(beside) else "`drop = [0]`, `required = false`"
    return [
        f"{len(unread)} of {len(beside)} files have a mask beside them, such as {name}, which is not read: side files "
        f'are ignored. To use it, put `{{scene}}` into `paths`, and add [sources.mask] with `paths = ["{glob}"]`, '
        f"{keys}"
    ]

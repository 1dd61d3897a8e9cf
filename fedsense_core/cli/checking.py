"""What an institution wants to know before it takes part: is the site file right, and which imagery is usable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from fedsense_core.config import resolve
from fedsense_core.data import Chips, Site, load_site, open_chips
from fedsense_core.places import safe_name


def check_site(path: Path, state: Path | None = None) -> Iterator[str]:
    """Yield lines about a site file and its imagery, read as training reads them with the shipped settings.

    With ``state``, the state-dir of a SuperNode, the chips stay there and training finds them. Raises SiteError where
    the site file is wrong or no imagery is usable.
    """
    data = resolve({}).data
    site = load_site(path)
    yield from _describe(site)
    with TemporaryDirectory(prefix="fedsense-check-") as temporary:
        folder = state / safe_name(site.name) if state else Path(temporary)
        yield from _judge(open_chips(site, data.bands, data.chip_size, folder / "chips"), data.chip_size)


def _describe(site: Site) -> Iterator[str]:
    yield f"site {site.name}: {site.description}".rstrip(": ")
    for source in site.sources:
        bands = ", ".join(f"{band.name} {band.wavelength_um:g} um" for band in source.card.bands)
        yield f"  {len(source.files)} files at {source.card.gsd_m:g} m a pixel: {bands}"


def _judge(chips: Chips, size: int) -> Iterator[str]:
    yield f"{len(chips)} chips of {size} x {size} pixels with {', '.join(chips.bands)}"
    for skipped in chips.skipped:
        yield f"  skipped {skipped.path}: {skipped.reason}"

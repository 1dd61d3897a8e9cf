"""Draw what each change of a training view does to imagery of three sensors of the sample.

Every panel is a view that ``fedsense_core.data.batches.augment`` made with one change alone, always
applied where training applies it by chance; the last two with all of them, by chance. A row keeps
the stretch of its chip, so that brightness compares.

    python docs/experiments/augmentations.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from fedsense_core.data.batches.augment import Augmentation, augment
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.locations import sample_folder

mpl.use("Agg")
import matplotlib.pyplot as plt

CHIP = 64
"""Side of the chips, pixels: that of the settings. Views are as large here, so that a flip is the
same pixels."""
STILL = Augmentation(
    CHIP, min_scale=1, flips=False, turns=False, image_gain=0, band_gain=0, image_offset=0, band_offset=0, grey=0
)
ALL = Augmentation(CHIP, blur=0.3, noise=0.3, drop_bands=0.3)
PANELS = (
    ("chip", STILL),
    ("crop with scale", replace(STILL, min_scale=0.3, max_scale=0.5)),
    ("flip", replace(STILL, flips=True)),
    ("turn", replace(STILL, turns=True)),
    ("gain and offset\nof the image", replace(STILL, image_gain=0.4, image_offset=0.4)),
    ("gain and offset\nof each band", replace(STILL, band_gain=0.3, band_offset=0.2)),
    ("grey", replace(STILL, grey=1)),
    ("bands dropped", replace(STILL, drop_bands=1)),
    ("blur", replace(STILL, blur=1)),
    ("noise", replace(STILL, noise=0.5)),
    ("all together", ALL),
    ("all together,\nanother draw", ALL),
)
COLUMNS = 6
SEED = 1879
"""One of the few by which flips and turns move all three chips and a shown band of each is
dropped."""
HEADROOM = 0.15
"""Share of a band's range that the stretch leaves free at either end, for gains and offsets to
show."""


@dataclass(frozen=True)
class Example:
    """One chip of the sample, and which of its bands are shown as red, green and blue."""

    title: str
    site: str
    shown: tuple[str, str, str]
    chip: int

    def load(self) -> tuple[Tensor, list[int]]:
        """Return the standardised chip (1, C, 64, 64) with all of its bands, and where the shown
        ones are."""
        site = load_site(sample_folder() / "sites" / f"{self.site}.toml")
        chips = open_chips(site, site.common_bands, CHIP, None)
        return chips.batch([self.chip]), [chips.bands.index(name) for name in self.shown]


EXAMPLES = (
    Example("Sentinel-2, 4 bands\nred, green, blue", "sentinel2-virginia", ("red", "green", "blue"), 54),
    Example("Landsat 7, 6 bands\nswir 1, nir, red", "landsat7-saltlake", ("swir_1", "nir", "red"), 87),
    Example("aerial, 3 bands\nred, green, blue", "neon-aerial", ("red", "green", "blue"), 15),
)


def views_of(chip: Tensor, seed: int) -> list[Tensor]:
    """Return one view (C, 64, 64) of a chip (1, C, 64, 64) for each panel."""
    generator = torch.Generator().manual_seed(seed)
    return [augment(chip, policy, generator)[0] for _, policy in PANELS]


def pictures(example: Example, seed: int) -> list[np.ndarray]:
    """Return one picture (64, 64, 3) in 0 to 1 for each panel."""
    chip, shown = example.load()
    low, high = np.percentile(chip[0, shown], (2, 98), axis=(1, 2), keepdims=True)
    low, high = low - HEADROOM * (high - low), high + HEADROOM * (high - low)
    stretched = [(view[shown].numpy() - low) / (high - low) for view in views_of(chip, seed)]
    return [np.clip(picture, 0, 1).transpose(1, 2, 0) for picture in stretched]


def draw(rows: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Draw the panels in blocks of six columns, one row a sensor in each block."""
    blocks = len(PANELS) // COLUMNS
    figure = plt.figure(figsize=(9.2, 10.2), layout="constrained")
    for block, part in enumerate(figure.subfigures(blocks, 1, squeeze=False).flat):
        axes = part.subplots(len(EXAMPLES), COLUMNS)
        for row, example in enumerate(EXAMPLES):
            axes[row, 0].set_ylabel(example.title, fontsize=8)
            for column in range(COLUMNS):
                panel, here = block * COLUMNS + column, axes[row, column]
                here.imshow(rows[row][panel], interpolation="nearest")
                here.set(xticks=[], yticks=[])
                if row == 0:
                    here.set_title(PANELS[panel][0], fontsize=9)
    figure.savefig(path, dpi=84, pil_kwargs={"optimize": True})
    plt.close(figure)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "results" / "augmentations.png"
    parser.add_argument("--out", type=Path, default=default, help=f"picture to write (default: {default.name} here)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of all random choices (default: {SEED})")
    return parser.parse_args()


def main() -> None:
    """Draw the picture."""
    options = arguments()
    draw([pictures(example, options.seed + row) for row, example in enumerate(EXAMPLES)], options.out)
    print(options.out)


if __name__ == "__main__":
    main()

"""How unlike each other clients are under each split of the shipped sample: mean total variation
distance of clusters.

python docs/experiments/partition_skew.py --seeds 5
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from fedsense_core.config import PartitionSection, resolve
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.partition.partition import partition, skew
from fedsense_core.data.partition.pooled import appearance, clusters, pool
from fedsense_core.data.sites.locations import sample_sites

SPLITS: dict[str, dict[str, Any]] = {
    "`iid`": {"kind": "iid"},
    "`dirichlet`, α = 50": {"kind": "dirichlet", "alpha": 50.0},
    "`sites`, 5 clients": {"kind": "sites"},
    "`blocks` of 512 pixels": {"kind": "blocks", "block_pixels": 512},
    "`sensor`, blocks of 256 pixels": {"kind": "sensor", "block_pixels": 256},
    "`dirichlet`, α = 0.5": {"kind": "dirichlet", "alpha": 0.5},
    "`dirichlet`, α = 0.05": {"kind": "dirichlet", "alpha": 0.05},
}


def main() -> None:
    """Split the sample for each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--alphas", type=float, nargs="+", help="Dirichlet splits to measure instead of the usual ones")
    args = parser.parse_args()
    data = resolve({}).data
    sets = [open_chips(load_site(path), data.bands, data.chip_size, None) for path in sample_sites()]
    features = appearance(sets)
    print("| split | distance, mean ± deviation over seeds |\n|---|---|")
    asked = {f"`dirichlet`, α = {alpha:g}": {"kind": "dirichlet", "alpha": alpha} for alpha in args.alphas or ()}
    for name, switches in (asked or SPLITS).items():
        settings = PartitionSection(**switches)
        distances = []
        for seed in range(args.seeds):
            # Clusters for every kind: they are the ruler here, whatever the split goes by.
            labels = clusters(features, settings.clusters, seed)
            archive = replace(pool(sets, PartitionSection(), seed), label=labels)
            distances.append(skew(partition(archive, settings, seed), labels))
        print(f"| {name} | {np.mean(distances):.2f} ± {np.std(distances, ddof=1):.2f} |")


if __name__ == "__main__":
    main()

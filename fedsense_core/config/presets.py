"""Methods are data: each preset is a handful of switches over the configuration tree, never a class
(`docs/method.md`, section 9)."""

from __future__ import annotations

from typing import Any

from fedsense_core.errors import ConfigError, nearest

Switches = dict[str, dict[str, Any]]

PLAIN: Switches = {
    "guidance": {"kind": "none"},
    "alignment": {"weight": 0.0},
    "uplink": {"codec": "none", "feedback": False},
    "downlink": {"codec": "none"},
    "outer": {"kind": "fedavg"},
    "distillation": {"kind": "none"},
}
"""Full models both ways, averaged: what every baseline starts from."""

PRESETS: dict[str, Switches] = {
    "fedsense": {
        "guidance": {"kind": "shift", "direction": "momentum", "sign": 1},
        "alignment": {"target": "global"},
        "uplink": {"codec": "eden", "bits": 1, "feedback": True},
        "downlink": {"codec": "eden", "bits": 4},
        "outer": {"kind": "fedavg"},
        "distillation": {"kind": "similarity", "public_weight": 1.0},
    },
    "fedsense-plus": {
        "train": {"optimiser": "muon", "learning_rate": 8e-3},
        "guidance": {"kind": "shift", "direction": "momentum", "sign": 1},
        "alignment": {"weight": 0.0},
        "uplink": {"codec": "trellis", "bits": 1, "feedback": True, "prediction": True},
        "downlink": {"codec": "trellis", "bits": 4},
        "aggregation": {"clip": "median"},
        "outer": {"kind": "fedavg"},
        "distillation": {"kind": "similarity", "public_weight": 1.0},
    },
    "fedsense-fp32": {
        "guidance": {"kind": "shift", "direction": "momentum", "sign": 1},
        "alignment": {"target": "global"},
        "uplink": {"codec": "none", "feedback": False},
        "downlink": {"codec": "none"},
        "outer": {"kind": "fedavg"},
        "distillation": {"kind": "similarity", "public_weight": 1.0},
    },
    "fedavg": PLAIN,
    "standalone": PLAIN,
    "centralised": PLAIN | {"federation": {"pooled": True}},
    "fedprox": PLAIN | {"train": {"proximal": 0.01}},
    "fedu": PLAIN | {"train": {"recipe": "byol"}, "personalisation": {"kind": "predictor"}},
    "fedema": PLAIN | {"train": {"recipe": "byol"}, "personalisation": {"kind": "average"}},
    "l-dawa": PLAIN | {"aggregation": {"kind": "l-dawa"}},
    "l-dawa-normalised": PLAIN | {"aggregation": {"kind": "l-dawa-normalised"}},
    "flesd": PLAIN
    | {"aggregation": {"kind": "none"}, "distillation": {"kind": "ensemble", "student_temperature": 0.07}},
    "fedmkd": PLAIN
    | {
        "train": {"recipe": "byol"},
        "alignment": {"weight": "auto"},
        "aggregation": {"kind": "none"},
        "distillation": {"kind": "multi-teacher", "public_weight": 0.111},  # 0.1 beside 0.9 in its code
    },
    "fedx": PLAIN | {"alignment": {"kind": "cross", "weight": 1.0}},
    "fedsam": PLAIN | {"guidance": {"kind": "sam", "scale": "absolute", "radius": 0.05, "ramp": 0.0}},
    "fedlesam": PLAIN
    | {"guidance": {"kind": "shift", "scale": "absolute", "radius": 0.05, "ramp": 0.0, "momentum": 0.0}},
    "mofedsam": PLAIN
    | {
        "guidance": {"kind": "sam", "scale": "absolute", "radius": 0.05, "ramp": 0.0, "momentum": 0.0},
        "train": {"global_momentum": 0.9},
    },
    "diloco": PLAIN | {"outer": {"kind": "nesterov", "learning_rate": 0.7, "momentum": 0.9}},
    "fedavg-public": PLAIN | {"distillation": {"kind": "public-ssl"}},
    "public-only": PLAIN | {"aggregation": {"kind": "none"}, "distillation": {"kind": "public-ssl"}},
}

SOURCES: dict[str, str] = {
    "fedsense": "arXiv 2503.11051, as read, and self-supervision on the public set",
    "fedsense-plus": "the same with our codec and prediction, Muon inside, and without alignment",
    "fedsense-fp32": "fedsense at 32 bits both ways",
    "fedavg": "McMahan et al. 2017 (arXiv 1602.05629), algorithm 1",
    "standalone": "one institution alone; name it in ``federation.only``",
    "centralised": "all imagery on one machine",
    "fedprox": "Li et al. 2020 (arXiv 1812.06127), equation 2",
    "fedu": "Zhuang et al. 2021 (arXiv 2108.06492), divergence-aware predictor update",
    "fedema": "Zhuang et al. 2022 (arXiv 2204.04385), equations 2 to 5",
    "l-dawa": "Rehman et al. 2023 (arXiv 2307.07393), as their code aggregates",
    "l-dawa-normalised": "the same with weights that sum to one",
    "flesd": "Shi et al. 2021 (arXiv 2109.14611), without a queue of keys",
    "fedmkd": "after Li et al. 2024 (NeurIPS): its server, with a plain attention; clients of one architecture",
    "fedx": "Han et al. 2022 (arXiv 2207.09158)",
    "fedsam": "Qu et al. 2022 (arXiv 2206.02618), algorithm 1",
    "fedlesam": "Fan et al. 2024 (arXiv 2405.18890)",
    "mofedsam": "Qu et al. 2022 (arXiv 2206.02618), algorithm 2",
    "diloco": "Douillard et al. 2023 (arXiv 2311.08105), algorithm 1",
    "fedavg-public": "FedAvg, and self-supervision on the public set",
    "public-only": "self-supervision on the public set; nothing that clients do counts",
}
"""Where each method comes from."""


def preset(name: str) -> Switches:
    """Return the switches of a preset. Raises ConfigError naming the nearest known one."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"unknown preset {name!r}.{nearest(name, list(PRESETS))} Known presets: {known}.")
    return PRESETS[name]

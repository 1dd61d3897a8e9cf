"""Methods are data: each preset is a handful of switches over the configuration tree, never a class (DESIGN, section
9)."""

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
        "distillation": {"kind": "similarity"},
    },
    "fedsense-plus": {
        "guidance": {"kind": "shift", "direction": "momentum", "sign": 1},
        "alignment": {"target": "global"},
        "uplink": {"codec": "trellis", "bits": 1, "feedback": True, "predictor": True},
        "downlink": {"codec": "trellis", "bits": 4},
        "outer": {"kind": "fedavg"},
        "distillation": {"kind": "similarity"},
    },
    "fedsense-fp32": {
        "guidance": {"kind": "shift", "direction": "momentum", "sign": 1},
        "alignment": {"target": "global"},
        "uplink": {"codec": "none", "feedback": False},
        "downlink": {"codec": "none"},
        "outer": {"kind": "fedavg"},
        "distillation": {"kind": "similarity"},
    },
    "fedavg": PLAIN,
    "standalone": PLAIN,
    "centralised": PLAIN | {"federation": {"pooled": True}},
}
"""arXiv 2503.11051 as read (``fedsense``; ``-fp32`` at 32 bits both ways; ``-plus`` with our codec and predictor),
McMahan et al. 2017 (``fedavg``), and the two ends: one institution alone (name it in ``federation.only``), and all
imagery in one place."""


def preset(name: str) -> Switches:
    """Return the switches of a preset. Raises ConfigError naming the nearest known one."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"unknown preset {name!r}.{nearest(name, list(PRESETS))} Known presets: {known}.")
    return PRESETS[name]

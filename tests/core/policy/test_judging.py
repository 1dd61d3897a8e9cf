"""Settings and policies: what is allowed, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from federation import MASKED_VIT, TINY

from fedsense_core.config import Config, resolve
from fedsense_core.errors import ConfigError
from fedsense_core.models.pretraining import build_model
from fedsense_core.policy import Policy, breaches
from fedsense_core.policy.footprint import Footprint

CPU = torch.device("cpu")
ALLOWED: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "defaults": ({}, {}),
    "at the limit": ({"train.local_steps": 50}, {"limits": {"local_steps": 50}}),
    "preset": ({"preset": "fedsense-plus"}, {"allowed": {"presets": ["fedavg", "fedsense-plus"]}}),
    "recipe": ({"train.recipe": "byol"}, {"allowed": {"recipes": ["byol"]}}),
    "codecs": ({"preset": "fedsense-plus"}, {"allowed": {"codecs": ["trellis"]}}),
    "sums": ({"train.recipe": "lejepa", "train.federated_sigreg": True}, {"sharing": {"sums": True}}),
    "clip": ({"preset": "fedsense-plus"}, {"required": {"protections": ["clip"]}}),
    "uplink-clip": ({"uplink.clip": 3.0}, {"required": {"protections": ["uplink-clip"]}}),
    "clients": ({"federation.quorum": 3}, {"required": {"clients": 3}}),
}
REFUSED: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "steps": ({"train.local_steps": 10_001}, {}, "train.local_steps = 10001, at most 10000 are allowed (limits.loc"),
    "batch": ({"train.batch_size": 64}, {"limits": {"batch_size": 32}}, "train.batch_size = 64, at most 32"),
    "chips": ({"data.chip_size": 64}, {"limits": {"chip_size": 48}}, "data.chip_size = 64, at most 48"),
    "views": ({"data.view_size": 65}, {"limits": {"chip_size": 64}}, "data.view_size = 65, at most 64"),
    "preset": ({"preset": "fedavg"}, {"allowed": {"presets": ["fedsense"]}}, "preset = 'fedavg', allowed: 'fedsense'"),
    "changed preset": (
        {"preset": "fedsense", "uplink.bits": 8},
        {"allowed": {"presets": ["fedsense"]}},
        "uplink.bits = 8, but preset 'fedsense' has 1 (allowed.presets)",
    ),
    "recipe": ({"train.recipe": "mae"}, {"allowed": {"recipes": ["byol"]}}, "train.recipe = 'mae', allowed: 'byol'"),
    "uplink": ({"uplink.codec": "none"}, {"allowed": {"codecs": ["eden"]}}, "uplink.codec = 'none', allowed: 'eden'"),
    "downlink": ({"downlink.codec": "none"}, {"allowed": {"codecs": ["eden"]}}, "downlink.codec = 'none', allowed"),
    "sums": ({"train.recipe": "lejepa", "train.federated_sigreg": True}, {}, "sums over embeddings, which may not"),
    "clip": ({}, {"required": {"protections": ["clip"]}}, "the run needs aggregation.clip = 'median'"),
    "uplink-clip": ({}, {"required": {"protections": ["uplink-clip"]}}, "the run needs uplink.clip above 0"),
    "quorum": ({}, {"required": {"clients": 3}}, "federation.quorum = 1, at least 3 are required (required.clients)"),
}


def config(settings: Mapping[str, Any]) -> Config:
    return resolve({**settings}, {})


def policy(tables: Mapping[str, Any]) -> Policy:
    return Policy.model_validate({name: dict(table) for name, table in tables.items()})


@pytest.mark.parametrize("name", ALLOWED)
def test_what_keeps_to_the_policy_is_allowed(name: str) -> None:
    settings, tables = ALLOWED[name]
    assert breaches(policy(tables), config(settings), asked=3) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_it_is_named_with_setting_value_and_limit(name: str) -> None:
    settings, tables, message = REFUSED[name]
    (said,) = breaches(policy(tables), config(settings))
    assert message in said


def test_every_breach_is_named_at_once_and_a_round_of_too_few_too() -> None:
    strict = policy({"limits": {"local_steps": 1, "batch_size": 2}, "required": {"clients": 3}})
    found = breaches(strict, config({"federation.quorum": 3}), asked=2)
    assert [text.split(" ")[0] for text in found] == ["train.local_steps", "train.batch_size", "the"]
    assert "the round asks 2 clients, at least 3 are required" in found[-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"train.local_steps": 10**8},
        {"train.batch_size": 10**6},
        {"data.chip_size": 10**5},
        {"run.rounds": 10**9},
        {"federation.deadline_s": 1e9},
        {"model.projector": [10**6, 64]},
        {"run.seed": 2**64},
    ],
    ids=str,
)
def test_settings_end_where_no_run_needs_more(settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(ConfigError, match=f"{key}.*less than or equal"):
        config(settings)


@pytest.mark.parametrize("settings", [{}, {key.replace("__", "."): value for key, value in MASKED_VIT.items()}])
def test_parameters_are_counted_without_building_the_model(settings: dict[str, Any]) -> None:
    chosen = resolve(TINY | settings, {})
    takes = Footprint.of(chosen, CPU)
    assert takes.parameters == sum(parameter.numel() for parameter in build_model(chosen).parameters())
    assert takes.memory > Footprint.of(chosen, torch.device("cuda")).memory > 0, "there, activations are on the GPU"


def test_memory_grows_with_the_batch_and_a_huge_model_takes_none_to_estimate() -> None:
    small, large = (Footprint.of(resolve(TINY | {"train.batch_size": size}, {}), CPU) for size in (4, 4096))
    assert large.memory > 100 * small.memory
    huge = {
        "model.architecture": "vit_base_patch16_224",
        "model.args": {"embed_dim": 16_384, "num_heads": 16, "depth": 4},
    }
    assert (
        Footprint.of(resolve(TINY | huge | {"data.view_size": 224, "data.chip_size": 224}, {}), CPU).parameters > 10**10
    )

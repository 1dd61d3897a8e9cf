"""A made-up run, as the server writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SITES = ["modis", "landsat", "aerial"]


def probe_line(level: float) -> dict[str, float]:
    return {
        "knn_accuracy": level - 0.05,
        "knn_macro_f1": level - 0.07,
        "linear_accuracy": level + 0.02,
        "linear_macro_f1": level,
        "linear_macro_f1_se": 0.02,
    }


def round_line(number: int, rejected: list[dict[str, str]] | None = None) -> dict[str, Any]:
    refused = rejected or []
    accepted = [site for site in SITES if site not in [r["node"] for r in refused]]
    return {
        "round": number,
        "elements": 1_000_000,
        "loss": 5.0 / number,
        "loss_by_site": {site: 5.0 / number + i / 10 for i, site in enumerate(accepted)},
        "ssl_loss": 4.0 / number,
        "alignment_loss": 0.25,
        "distillation_loss": None,
        "bytes_up": 130_000 * len(accepted),
        "bytes_down": 500_000 * len(SITES),
        "seconds": {"down": 0.1, "clients": 20.0, "aggregate": 1.0, "evaluate": 2.0, "total": 23.1},
        "accepted": accepted,
        "rejected": refused,
        "radius": 0.1,
        "ramp": 1.0,
        "update_norm": 2.0,
        "momentum_norm": 1.0,
        "drift": {site: 1.0 + i for i, site in enumerate(accepted)},
        "cosine": {site: 0.5 - i / 10 for i, site in enumerate(accepted)},
        "learning_rate": 1e-3,
        "probe": probe_line(0.3 + 0.02 * number) if number % 2 == 0 else None,
    }


@pytest.fixture
def make_round() -> Callable[..., dict[str, Any]]:
    return round_line


@pytest.fixture
def history() -> list[dict[str, Any]]:
    return short_history()


@pytest.fixture(scope="session")
def shared_history() -> list[dict[str, Any]]:
    """For tests that draw once and look often."""
    return short_history()


def short_history() -> list[dict[str, Any]]:
    late = [{"node": "aerial", "reason": "checksum differs: <b>ask the site</b>"}]
    return [
        {"round": 0, "probe": probe_line(0.25)},
        *[round_line(n, late if n == 3 else None) for n in range(1, 5)],
    ]

"""No choice of the settings is ignored: a tiny run with it differs from one without.

The choices are found by walking over the tree of settings, so a new one is tested by itself. What a
choice needs beside it stands in `CONTEXT`; what cannot show, and why, in `ALIKE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from federation import Federation

from fedsense_core.config import Config, Section, resolve
from fedsense_core.errors import ConfigError
from server_app.checkpoints import Checkpoints

Changes = Mapping[str, Any]
SMALL = {
    "run.rounds": 2,
    "run.keep_models": False,
    "federation.min_clients": 2,
    "model.args": {"layers": [1, 1, 1, 0], "channels": [16, 16, 16, 16], "norm_layer": "groupnorm1"},
    "train.local_steps": 1,
}
"""Two rounds: the first has no momentum, hence no guidance, and nothing to predict from."""
SHARED_OUT = {"partition.clients": 2, "partition.clusters": 2}
CONTEXT: dict[str, Changes] = {
    "partition.kind": SHARED_OUT,
    "partition.by": SHARED_OUT | {"partition.kind": "dirichlet", "partition.alpha": 0.1},
    "train.recipe=mae": {"data.view_size": 32},
    "personalisation.kind": {"train.recipe": "byol", "personalisation.threshold": 0.0},
    "uplink.codec=qsgd": {"uplink.bits": 2},
    "uplink.state_bits": {"uplink.codec": "trellis"},
    "downlink.state_bits": {"downlink.codec": "trellis"},
    "downlink.codec": {"downlink.bits": 2},
    "aggregation.kind": {"aggregation.plain_rounds": 0},
    "aggregation.weights": SHARED_OUT | {"partition.kind": "iid", "partition.tail": 1.0},
}
"""By setting, or by setting and choice: what else is set, for the default as well."""
REFUSED = {
    "downlink.codec=qsgd": "a broadcast carries its error on, which an unbiased codec lets grow",
    "downlink.codec=ternary": "as qsgd",
}
ALIKE = {
    "run.resume=never": "differs where the folder of the run exists",
    "model.stem=plain": "what `auto` is for named bands, and refused for all bands",
    "train.precision=fp32": "what `auto` is on a CPU",
}
"""Choices that such a run cannot tell from the default."""


def choices(annotation: Any) -> Iterator[Any]:
    """Yield the values of every Literal in an annotation."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from choices(part)


def others() -> Iterator[tuple[str, Any]]:
    """Yield (key, choice) of all that is not the default."""
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for inner, info in field.annotation.model_fields.items():
                default = getattr(getattr(resolve({}, {}), name), inner)
                yield from ((f"{name}.{inner}", one) for one in choices(info.annotation) if one != default)


OTHERS = {f"{key}={choice}": (key, choice) for key, choice in others()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Changes], tuple[bytes, str]]:
    """Return a function from changes of the settings to all that a run of them leaves; each is run
    once."""
    root = tmp_path_factory.mktemp("choices")

    @cache
    def result(changes: str) -> tuple[bytes, str]:
        return run(root, json.loads(changes))

    return lambda changes: result(json.dumps(changes, sort_keys=True))


def run(root: Path, changes: Changes) -> tuple[bytes, str]:
    """Return the last weights, and what was recorded of each round but for how long it took."""
    number = len(list(root.glob("run-*")))
    fed = Federation(root, {**SMALL, **changes, "run.folder": str(root / f"run-{number}")})
    del fed.grid.contexts[fed.node("gamma")]  # two clients are enough
    folder = fed.run()
    state = Checkpoints(folder.checkpoints, fed.config.digest).newest()
    assert state is not None
    return state["weights"].numpy().tobytes(), json.dumps(untimed(folder.read_metrics()))


def untimed(value: Any) -> Any:
    """Return a record without its timings, and without what a process has needed so far."""
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if "seconds" not in key and "memory" not in key}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def test_the_same_settings_leave_the_same(tmp_path: Path) -> None:
    assert run(tmp_path, {}) == run(tmp_path, {})


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in ALIKE and name not in REFUSED])
def test_every_choice_changes_a_run(name: str, results: Callable[[Changes], tuple[bytes, str]]) -> None:
    key, choice = OTHERS[name]
    beside = CONTEXT.get(name, CONTEXT.get(key, {}))
    assert results({**beside, key: choice}) != results(beside)


@pytest.mark.parametrize("name", REFUSED)
def test_choices_that_cannot_be_are_refused(name: str) -> None:
    key, choice = OTHERS[name]
    with pytest.raises(ConfigError):
        resolve({**CONTEXT.get(name, CONTEXT.get(key, {})), key: choice}, {})


def test_every_exception_and_every_context_is_of_a_choice_that_exists() -> None:
    assert set(ALIKE) | set(REFUSED) <= set(OTHERS)
    assert set(CONTEXT) <= set(OTHERS) | {key for key, _ in OTHERS.values()}

"""Whether a run's settings, and what a task asks beside them, keep to a policy. Pure: nothing is
read, built or measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fedsense_core.config import Config
from fedsense_core.config.presets import preset
from fedsense_core.policy.policy_file import Policy, Protection

PROTECTIONS: Mapping[Protection, tuple[Callable[[Config], bool], str]] = {
    "clip": (lambda config: config.aggregation.clip == "median", "aggregation.clip = 'median'"),
    "uplink-clip": (lambda config: config.uplink.clip > 0, "uplink.clip above 0"),
}
"""By name: whether a run has a protection, and the setting that gives it."""


def breaches(policy: Policy, config: Config, asked: int | None = None) -> list[str]:
    """Return what the policy does not allow, each with setting, value and what is allowed; empty
    where all is well.

    ``asked`` is how many clients the task says its round asks; None before there is a round.
    """
    found = [*_limits(policy, config), *_allowed(policy, config), *_required(policy, config)]
    if config.train.federated_sigreg and not policy.sharing.sums:
        found.append("train.federated_sigreg = true needs sums over embeddings, which may not leave (sharing.sums)")
    if asked is not None and asked < policy.required.clients:
        found.append(f"the round asks {asked} clients, at least {policy.required.clients} are required (clients)")
    return found


def _limits(policy: Policy, config: Config) -> Iterator[str]:
    limits, data = policy.limits, config.data
    asked = {
        ("train.local_steps", config.train.local_steps): ("local_steps", limits.local_steps),
        ("train.batch_size", config.train.batch_size): ("batch_size", limits.batch_size),
        ("data.chip_size", data.chip_size): ("chip_size", limits.chip_size),
        ("data.view_size", data.view_size): ("chip_size", limits.chip_size),
    }
    for (key, value), (name, most) in asked.items():
        if value > most:
            yield f"{key} = {value}, at most {most} are allowed (limits.{name})"


def _allowed(policy: Policy, config: Config) -> Iterator[str]:
    allowed = policy.allowed
    if allowed.recipes != "all" and config.train.recipe not in allowed.recipes:
        yield f"train.recipe = {config.train.recipe!r}, allowed: {_listed(allowed.recipes)} (allowed.recipes)"
    for section in ("uplink", "downlink"):
        codec = getattr(config, section).codec
        if allowed.codecs != "all" and codec not in allowed.codecs:
            yield f"{section}.codec = {codec!r}, allowed: {_listed(allowed.codecs)} (allowed.codecs)"
    if allowed.presets == "all":
        return
    if config.preset not in allowed.presets:
        yield f"preset = {config.preset!r}, allowed: {_listed(allowed.presets)} (allowed.presets)"
        return
    for name, switches in preset(config.preset).items():
        for key, value in switches.items():
            if (chosen := getattr(getattr(config, name), key)) != value:
                yield f"{name}.{key} = {chosen!r}, but preset {config.preset!r} has {value!r} (allowed.presets)"


def _required(policy: Policy, config: Config) -> Iterator[str]:
    required = policy.required
    if config.federation.quorum < required.clients:
        least = f"at least {required.clients} are required (required.clients)"
        yield f"federation.quorum = {config.federation.quorum}, {least}"
    for name in required.protections:
        has, remedy = PROTECTIONS[name]
        if not has(config):
            yield f"protection {name!r} is required: the run needs {remedy} (required.protections)"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names)) or "none"

"""How much a client weighs: by the chips that it says it has, if the run says so, and never by a
claim that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import pytest
import torch
from federation import SITES, Federation, same_bits, write_raster
from flwr.app import Message

from fedsense_core.config import resolve
from fedsense_core.errors import ConfigError, FedSenseError
from server_app.distillation.distiller import Distiller
from server_app.distillation.objective import Teacher
from server_app.round import Accepted

Make = Callable[..., Federation]
CHIPS = {"alpha": 36, "beta": 9, "gamma": 9}
"""Of 16 pixels, in rasters of 96 and 48."""
SIZE = {"chips": float, "sqrt-chips": sqrt}


def grow_alpha(fed: Federation) -> Federation:
    write_raster(fed.root / "sites" / "alpha" / "scene.tif", seed=0, side=96)
    return fed


@pytest.mark.parametrize("weights", SIZE)
def test_site_weighs_by_its_chips_in_mean_loss_and_distillation(
    federation: Make, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Accepted]] = []
    taught: list[list[Teacher]] = []
    teachers = Distiller.teachers

    def watched(self: Distiller, accepted: list[Accepted], *rest: object) -> list[Teacher]:
        seen.append(list(accepted))
        taught.append(teachers(self, accepted, *rest))  # type: ignore[arg-type]
        updates.append([one.update() for one in accepted])
        return taught[-1]

    updates: list[list[torch.Tensor]] = []
    monkeypatch.setattr(Distiller, "teachers", watched)
    fed = grow_alpha(federation(changes={"aggregation.weights": weights, "run.rounds": 1}))
    fed.run()
    (line,) = fed.lines()
    sizes = [SIZE[weights](CHIPS[site]) for site in SITES]
    shares = [size / sum(sizes) for size in sizes]
    assert line["accepted"] == list(SITES)
    assert list(line["weights"].values()) == pytest.approx(shares)
    assert [one.weight for one in taught[0]] == pytest.approx(shares)
    losses = [line["clients"][site]["ssl-loss"] for site in SITES]
    assert line["ssl_loss"] == pytest.approx(sum(p * loss for p, loss in zip(shares, losses, strict=True)))
    mean = sum(p * update for p, update in zip(shares, updates[0], strict=True))
    assert line["update_norm"] == pytest.approx(float(torch.as_tensor(mean).norm()), rel=1e-5)


def test_equal_weights_are_equal_whatever_a_site_holds(federation: Make) -> None:
    fed = grow_alpha(federation(changes={"run.rounds": 1}))
    fed.run()
    assert fed.lines()[0]["weights"] == dict.fromkeys(SITES, 1 / 3)


def claiming(chips: int) -> Callable[[Message, Message | None], Message | None]:
    def claim(task: Message, reply: Message | None) -> Message | None:
        assert reply is not None
        reply.content.config_records["handshake"]["chips"] = chips
        return reply

    return claim


@pytest.mark.parametrize("chips", [0, 201, 10**8])
def test_claim_that_cannot_be_is_refused_where_it_would_weigh(federation: Make, chips: int) -> None:
    changes = {"run.rounds": 1, "federation.min_clients": 2, "admission.max_chips": 200}
    fed = federation(changes=changes | {"aggregation.weights": "chips"})
    fed.grid.faults = {(0, fed.node("beta")): claiming(chips)}
    fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == ["alpha", "gamma"]
    (refused,) = line["rejected"]
    assert refused["node"] == "beta"
    assert f"{chips} chips" in refused["reason"]
    assert "1 to 200 are believed (admission.max_chips)" in refused["reason"]


def test_claim_moves_nothing_where_weights_are_equal(federation: Make) -> None:
    honest, boasting = (federation(name, changes={"run.rounds": 1}) for name in ("honest", "boasting"))
    boasting.grid.faults = {(0, boasting.node("beta")): claiming(10**8)}
    honest.run()
    boasting.run()
    assert same_bits(honest.state().weights, boasting.state().weights)


def test_killed_run_by_chips_continues_to_the_same_bits(federation: Make) -> None:
    changes = {"aggregation.weights": "chips", "run.rounds": 2}
    whole, killed = (grow_alpha(federation(name, changes=changes)) for name in ("whole", "killed"))
    whole.run()

    def die(task: Message, reply: Message | None) -> Message:
        raise KeyboardInterrupt

    killed.grid.faults = {(2, killed.node("gamma")): die}
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = federation("killed", changes=changes, first_node=900)
    again.run()
    assert same_bits(again.state().weights, whole.state().weights)


@pytest.mark.parametrize("kind", ["l-dawa", "l-dawa-normalised", "none"])
def test_rules_with_weights_of_their_own_take_no_others(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"aggregation\.weights = 'chips'.*aggregation\.kind = 'mean'"):
        resolve({"aggregation.kind": kind, "aggregation.weights": "chips", "distillation.kind": "ensemble"}, {})


def test_run_in_which_every_claim_is_refused_says_so(federation: Make) -> None:
    fed = federation(changes={"aggregation.weights": "chips", "admission.max_chips": 8})
    with pytest.raises(FedSenseError, match=r"alpha, beta, gamma: it says it has 9 chips.*admission\.max_chips"):
        fed.run()

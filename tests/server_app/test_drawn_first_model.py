"""Round 1 sends no model to who draws it: the digest is enough, and whoever draws another gets the
model in the same round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty_grid import once
from federation import SITES, Federation, same_bits
from flwr.app import Message

from client_app import round as client_round
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import unbundle
from fedsense_core.protocol.frame import HEADER_BYTES, FrameKind, unpack
from fedsense_core.protocol.messages import TrainTask
from fedsense_core.tensors import TensorTable

Make = Callable[..., Federation]


def kinds(fed: Federation, rounds: int = 1) -> dict[tuple[int, str], list[FrameKind]]:
    """Return, once the federation has run, which frames each site was sent in the first rounds."""
    found: dict[tuple[int, str], list[FrameKind]] = {}
    faults = dict(fed.grid.faults)

    def listener(key: tuple[int, str]) -> Any:
        def listen(task: Message, reply: Message | None) -> Any:
            frames = unbundle(TrainTask.from_records(task.content).frames)
            found[key] = [unpack(frame)[0].kind for frame in frames]
            fault = faults.get((key[0], fed.node(key[1])))
            return fault(task, reply) if fault else reply

        return listen

    for number in range(1, rounds + 1):
        for site in SITES:
            fed.grid.faults[number, fed.node(site)] = listener((number, site))
    return found


def says(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    """Let the sites answer other digests of the first model than they draw, in the order in which
    they are asked; an empty one is the truth."""
    honest, left = client_round.drawn_digest, list(answers)
    monkeypatch.setattr(client_round, "drawn_digest", lambda config: left.pop(0) or honest(config))


def test_first_round_carries_a_header_and_the_result_is_that_of_a_run_that_sends_the_model(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = federation("drawn", changes={"run.rounds": 2})
    found = kinds(drawn, 2)
    drawn.run()
    assert [found[1, site] for site in SITES] == [[FrameKind.DRAWN]] * 3
    assert [found[2, site] for site in SITES] == [[FrameKind.DELTA]] * 3
    says(monkeypatch, ["none"] * 3)
    sent = federation("sent", changes={"run.rounds": 2})
    found = kinds(sent)
    sent.run()
    assert [found[1, site] for site in SITES] == [[FrameKind.MODEL]] * 3
    assert same_bits(drawn.state().weights, sent.state().weights)
    assert drawn.state().replica.digest() == sent.state().replica.digest()
    model = 4 * TensorTable.of(build_model(drawn.config)).numel
    lines = [fed.lines() for fed in (drawn, sent)]
    assert lines[1][0]["bytes_down"] - lines[0][0]["bytes_down"] == 3 * model
    assert lines[0][1]["bytes_down"] == lines[1][1]["bytes_down"]
    assert lines[0][0]["bytes_down_parts"] == {"codes": 0, "scales": 0}
    assert lines[0][0]["bytes_down"] < 3 * (HEADER_BYTES + 1024)


def test_site_that_draws_another_model_is_sent_this_one_in_the_same_round(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, ["", "0123456789abcdef" * 2, ""])
    fed = federation(changes={"run.rounds": 1})
    found = kinds(fed)
    fed.run()
    assert [found[1, site] for site in SITES] == [[FrameKind.DRAWN], [FrameKind.MODEL], [FrameKind.DRAWN]]
    assert fed.lines()[0]["accepted"] == list(SITES)


def test_site_that_claims_what_it_does_not_draw_sits_out_one_round(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = federation(changes={"run.rounds": 2})
    found = kinds(fed, 2)
    honest = client_round.build_model
    built = []

    def other(config: Any) -> Any:
        model = honest(config)
        built.append(model)
        if len(built) == 5:  # three handshakes, alpha, then beta's round
            with torch.no_grad():
                next(model.parameters()).add_(1e-3)
        return model

    monkeypatch.setattr(client_round, "build_model", other)
    fed.run()
    assert fed.lines()[0]["accepted"] == ["alpha", "gamma"]
    (rejected,) = fed.lines()[0]["rejected"]
    assert "needs a snapshot" in str(rejected)
    assert found[2, "beta"] == [FrameKind.SNAPSHOT]
    assert fed.lines()[1]["accepted"] == list(SITES)


def test_round_that_is_repeated_sends_the_digest_again(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1, "federation.quorum": 3, "federation.deadline_s": 0.3})
    fed.grid.faults = {(1, fed.node("gamma")): once(lambda task, reply: None)}
    found = kinds(fed)
    fed.run()
    assert fed.grid.asked.count((1, fed.node("gamma"))) == 2
    assert found[1, "gamma"] == [FrameKind.DRAWN]


def test_newcomer_in_a_later_round_is_sent_a_snapshot_as_before(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2, "federation.min_clients": 2, "federation.deadline_s": 0.3})
    fed.grid.faults = {(1, fed.node("gamma")): lambda task, reply: None}
    found = kinds(fed, 2)
    fed.run()
    assert found[2, "gamma"] == [FrameKind.SNAPSHOT]
    assert fed.lines()[1]["accepted"] == list(SITES)


def test_whole_models_are_drawn_too_where_nothing_is_coded(federation: Make) -> None:
    fed = federation(changes={"preset": "fedavg", "run.rounds": 2})
    found = kinds(fed, 2)
    fed.run()
    assert [found[number, "beta"] for number in (1, 2)] == [[FrameKind.DRAWN], [FrameKind.MODEL]]
    assert fed.lines()[1]["accepted"] == list(SITES)


def test_nothing_is_drawn_where_weights_are_given(federation: Make, tmp_path: Any) -> None:
    torch.save(build_model(federation("other").config).encoder.state_dict(), tmp_path / "weights.pth")
    fed = federation(changes={"run.rounds": 1, "model.weights": str(tmp_path / "weights.pth")})
    found = kinds(fed)
    fed.run()
    assert [found[1, site] for site in SITES] == [[FrameKind.MODEL]] * 3

"""Who takes part: nodes that are mute, leave, come back, pretend, or have nothing to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import rasterio
from federation import SITES, Federation, logged
from flwr.app import Message

from client_app.identity import Identity
from client_app.memory import ClientMemory
from fedsense_core.config import Config
from fedsense_core.errors import ConfigError, FedSenseError
from server_app import cohort

Make = Callable[..., Federation]


@pytest.mark.parametrize("for_good", [False, True])
def test_task_that_the_superlink_did_not_take_is_sent_again_and_named_in_the_end(
    federation: Make, for_good: bool
) -> None:
    fed = federation(changes={"run.rounds": 2, "federation.retries": 2})
    honest, batches = fed.grid.push_messages, iter(["all"] + ["alpha" if for_good else "none"] * 9)

    def push(messages: list[Message]) -> list[str]:
        ids = list(honest(messages))
        if messages[0].metadata.group_id != "1":
            return ids
        refused = next(batches)
        # A refused batch comes back as an empty list.
        return [] if refused == "all" else ["" if refused == "alpha" else ids[0], *ids[1:]]

    fed.grid.push_messages = push  # type: ignore[assignment, method-assign]
    fed.run()
    first, second = fed.lines()
    named = [{"node": "alpha", "reason": "the SuperLink did not take the message"}] if for_good else []
    assert first["rejected"] == named
    assert len(first["notes"]) == 3
    assert second["accepted"] == list(SITES)


def test_mute_node_delays_the_first_round_only_and_is_asked_once(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort, "HANDSHAKE_GRACE_S", 0.3)
    fed = federation(changes={"run.rounds": 3, "federation.min_clients": 2})
    handshakes: list[int] = []

    def mute(task: Message, reply: Message | None) -> None:
        handshakes.append(1)

    fed.grid.faults = {(0, fed.node("gamma")): mute}
    fed.run()
    assert handshakes == [1]
    assert all(line["accepted"] == ["alpha", "beta"] for line in fed.lines())


def test_site_that_leaves_is_named_and_may_come_back_under_another_node(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 4, "federation.min_clients": 2})
    context = fed.grid.contexts[fed.node("beta")]

    def leave(task: Message, reply: Message | None) -> Message | None:
        del fed.grid.contexts[fed.node("beta")]
        return reply

    def back(task: Message, reply: Message | None) -> Message | None:
        fed.grid.contexts[777] = context
        return reply

    fed.grid.faults = {(1, fed.node("gamma")): leave, (2, fed.node("gamma")): back}
    fed.run()
    lines = fed.lines()
    assert lines[1]["rejected"] == [{"node": "beta", "reason": "no longer connected"}]
    assert lines[2]["accepted"] == lines[3]["accepted"] == list(SITES)


def test_two_nodes_with_one_site_file_count_once(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 2})
    fed.grid.contexts[800] = replace(fed.grid.contexts[fed.node("beta")], node_id=800)
    fed.run()
    first, second = fed.lines()
    assert first["accepted"] == second["accepted"] == list(SITES)
    assert "already taken" in first["rejected"][0]["reason"]
    assert not second["rejected"]  # asked once, reported once


def test_participation_below_a_half_carries_no_residual_and_says_so(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    fed = federation(changes={"federation.participation": 0.34, "federation.min_clients": 3, "run.rounds": 3})
    with logged(caplog):
        fed.run()
    assert "without error feedback" in caplog.text
    assert "federation.participation 0.34 is below a half: unbiased scale, no residual" in caplog.text
    assert all(len(line["accepted"]) == 1 for line in fed.lines())
    run_id = fed.state().run_id
    for site in SITES:
        memory = ClientMemory(fed.folder.path / "clients" / site, run_id)
        for number in memory.rounds():
            slot = memory.recall(number)
            assert slot is not None
            assert slot.residual is None


def test_participation_of_a_half_keeps_the_residual(federation: Make, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"federation.participation": 0.5, "federation.min_clients": 3, "run.rounds": 1}
    fed = federation(changes=changes | {"uplink.prediction": True})
    with logged(caplog):
        fed.run()
    assert "eden at 1 bit with error feedback and prediction" in caplog.text
    assert "below a half" not in caplog.text
    run_id = fed.state().run_id
    memories = [ClientMemory(fed.folder.path / "clients" / site, run_id) for site in fed.lines()[0]["accepted"]]
    slots = [memory.recall(1) for memory in memories]
    assert slots
    assert all(slot is not None and slot.residual is not None and bool(slot.residual.any()) for slot in slots)


def test_standalone_without_a_site_is_refused(federation: Make) -> None:
    with pytest.raises(ConfigError, match=r"federation\.only"):
        federation(changes={"preset": "standalone"}).run()


def test_too_few_clients_are_an_error_that_says_what_to_do(federation: Make) -> None:
    fed = federation(changes={"federation.min_clients": 4})
    with pytest.raises(FedSenseError, match=r"3 clients are able to train.*min_clients asks for 4"):
        fed.run()


def test_site_with_a_broken_site_file_is_named_and_the_others_train(federation: Make) -> None:
    fed = federation(changes={"federation.min_clients": 2, "run.rounds": 1})
    (fed.root / "sites" / "beta" / "scene.tif").write_bytes(b"II*\x00not a raster")
    fed.run()
    (line,) = fed.lines()
    assert line["accepted"] == ["alpha", "gamma"]
    (refused,) = line["rejected"]
    assert refused["node"] == "beta"
    assert "scene.tif" in refused["reason"]


BROKEN = {
    "a wrong key": ("beta", lambda text: text + "colour = 3\n"),
    "no imagery": ("beta", lambda text: text.replace("*.tif", "*.tiff")),
    "limits that nothing meets": ("beta", lambda text: text + "[limits]\nmax_file_pixels = 9\n"),
    "a name that is none": ("node 101", lambda text: text.replace('"beta"', '"no/name"')),
    "no TOML": ("node 101", lambda text: text + "= = ="),
    "no text": ("node 101", lambda text: "\x00"),
}
"""What is wrong with beta's site file, and whom the coordinator then names."""


@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=[pytest.mark.slow] * (i > 1)) for i, one in enumerate(BROKEN)]
)
def test_refused_client_is_named_by_its_site_in_log_metrics_and_report(
    federation: Make, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    fed = federation(changes={"federation.min_clients": 2, "run.rounds": 1, "run.report": True})
    path = fed.root / "sites" / "beta.toml"
    named, broken = BROKEN[fault]
    path.write_text(broken(path.read_text()))
    with logged(caplog):
        fed.run()
    (refused,) = fed.lines()[0]["rejected"]
    assert refused["node"] == named
    assert "beta" in refused["reason"]  # the file's name says whose it is where it gives no name
    assert f"{named} (node 101) cannot take part: {refused['reason']}" in caplog.text
    assert f"<td>{named}</td>" in fed.folder.report_file.read_text(encoding="utf-8")


def test_client_that_fails_unexpectedly_in_the_handshake_is_named_too(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Identity, config: Config) -> object:
        if self.name == "gamma":
            raise PermissionError(13, "Permission denied", "/srv/archive/scene.tif")
        return opened(self, config)

    opened = Identity.open
    monkeypatch.setattr(Identity, "open", denied)
    with pytest.raises(FedSenseError, match=r"gamma: PermissionError: .*denied: 'scene\.tif'"):
        federation(changes={"federation.min_clients": 3, "run.rounds": 1}).run()


def test_second_node_of_one_name_is_not_called_by_it(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    fed.grid.contexts[800] = replace(fed.grid.contexts[fed.node("beta")], node_id=800)
    fed.run()
    (refused,) = fed.lines()[0]["rejected"]
    assert refused["node"] == "node 800"
    assert "site 'beta' is already taken" in refused["reason"]


def test_run_that_cannot_start_names_every_site_that_refused(federation: Make) -> None:
    fed = federation(changes={"run.rounds": 1})
    for site in SITES:
        with (fed.root / "sites" / f"{site}.toml").open("a") as file:
            file.write("colour = 3\n")
    with pytest.raises(FedSenseError, match=r"alpha: alpha\.toml: unknown key .*; beta: .*; gamma: gamma\.toml"):
        fed.run()


def test_centralised_trains_one_client_on_all_imagery(federation: Make) -> None:
    fed = federation(changes={"preset": "centralised", "federation.min_clients": 1, "run.rounds": 1})
    fed.run()
    assert fed.lines()[0]["accepted"] == ["pooled"]


def test_standalone_asks_one_site_only(federation: Make) -> None:
    changes = {"preset": "standalone", "federation.only": "beta", "federation.min_clients": 1, "run.rounds": 2}
    fed = federation(changes=changes)
    fed.run()
    assert all(line["accepted"] == ["beta"] for line in fed.lines())


def test_undeclared_fill_is_warned_of_before_round_1_by_the_site_and_counted_at_the_server(
    federation: Make, caplog: pytest.LogCaptureFixture
) -> None:
    fed = federation(changes={"run.rounds": 1})
    for raster in (fed.root / "sites" / "beta" / "scene.tif", fed.root / "public" / "scene.tif"):
        with rasterio.open(raster, "r+") as file:
            pixels = file.read()
            pixels[:, :20] = 0
            file.write(pixels)
    with logged(caplog):
        fed.run()
    remedy = "set `nodata = 0` for this source"
    found = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    (at_site,) = (
        i for i, text in enumerate(found) if text.startswith("site beta: aerial-rgb: 0 is") and remedy in text
    )
    (at_server,) = (i for i, text in enumerate(found) if text.startswith("site beta warns of its imagery"))
    (public,) = (i for i, text in enumerate(found) if text.startswith("public imagery: aerial-rgb: 0 is"))
    assert public < at_site < at_server
    assert remedy in found[public]
    assert not any("alpha warns" in text or "site alpha: aerial" in text for text in found)
    assert fed.lines()[0]["accepted"] == list(SITES)


@pytest.mark.parametrize(("deployed", "agrees"), [(False, False), (True, False), (True, True)])
def test_what_a_site_shares_with_the_public_set_is_recorded_where_it_may_be_told(
    federation: Make, caplog: pytest.LogCaptureFixture, deployed: bool, agrees: bool
) -> None:
    fed = federation(changes={"run.rounds": 1})
    (fed.root / "sites" / "beta" / "scene.tif").write_bytes((fed.root / "public" / "scene.tif").read_bytes())
    if agrees:
        path = fed.root / "sites" / "beta.toml"
        path.write_text("share_overlap = true\n" + path.read_text())
    if deployed:
        for site in SITES:
            config = fed.grid.contexts[fed.node(site)].node_config
            config.clear()
            config |= {"site": str(fed.root / "sites" / f"{site}.toml"), "state-dir": str(fed.root / "state")}
    with logged(caplog):
        fed.run()
    told = {"beta": {"public": 1.0}} | ({} if deployed else {"alpha": {"public": 0.0}, "gamma": {"public": 0.0}})
    assert fed.lines()[0].get("overlap", {}) == (told if agrees or not deployed else {})
    assert "site beta: 100 % of its chips are also in the public set" in caplog.text
    assert "site alpha: " not in caplog.text

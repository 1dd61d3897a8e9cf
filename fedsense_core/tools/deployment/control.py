"""What a coordinator asks its own SuperLink: members, runs, their logs. Through Flower's Control
API on loopback, with this machine's certificate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.run import Run

from fedsense_core.tools.deployment.coordinator_folder import INIT, CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.node_keys import fingerprint_of
from fedsense_core.tools.deployment.parts import past_proxies

if TYPE_CHECKING:
    from fedsense_core.tools.runner.planning import Scalar


class NoAnswer(DeploymentError):
    """The SuperLink cannot be reached."""


@dataclass(frozen=True)
class Member:
    """An institution that was admitted."""

    name: str
    node_id: int
    status: str
    """``registered`` (never connected), ``online`` or ``offline``."""
    since: str
    """When that began, ISO 8601; empty where Flower does not say."""
    key: str
    """Fingerprint of its public key."""


@dataclass(frozen=True)
class RunState:
    """A run as Flower's SuperLink sees it."""

    run_id: int
    status: str
    """``pending``, ``starting``, ``running``, ``finished:completed``, ``finished:failed`` or
    ``finished:stopped``."""
    details: str
    """Why it failed."""
    folder: str
    """Its run folder."""
    began: str
    """When it was asked for, ISO 8601."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status.startswith("finished")


class Control:
    """The Control API of one SuperLink. Make one with ``connect``. All methods raise
    DeploymentError, NoAnswer where the SuperLink is not there."""

    def __init__(self, client: ControlHttpClient, address: str) -> None:
        self._client, self._address = client, address

    def members(self) -> list[Member]:
        """Return the institutions that were admitted, by name."""
        with self._clear_errors():
            nodes = self._client.ListNodes(ListNodesRequest()).nodes_info
        found = [
            Member(
                node.name,
                node.node_id,
                node.status,
                {"online": node.last_activated_at, "offline": node.last_deactivated_at}.get(node.status, ""),
                _fingerprint(node.public_key),
            )
            for node in nodes
            if node.status != "unregistered"
        ]
        return sorted(found, key=lambda member: member.name)

    def admit(self, name: str, key: ec.EllipticCurvePublicKey) -> None:
        """Let the holder of a key take part under a name that nobody else has."""
        for member in self.members():
            if member.name == name:
                raise DeploymentError(
                    f"{name} was admitted already, with the key {member.key}: `fedsense coordinator remove {name}` "
                    "first, if this is its new key"
                )
            if member.key == fingerprint_of(key):
                raise DeploymentError(f"the key {member.key} was admitted already, under the name {member.name}")
        with self._clear_errors():
            self._client.RegisterNode(RegisterNodeRequest(public_key=public_key_to_bytes(key), name=name))

    def remove(self, name: str) -> Member:
        """Take an institution out; its key is refused from now on."""
        members = self.members()
        for member in members:
            if member.name == name:
                with self._clear_errors():
                    self._client.UnregisterNode(UnregisterNodeRequest(node_id=member.node_id))
                return member
        raise DeploymentError(
            f"{name} is none of the members: {', '.join(m.name for m in members) or 'there are none'}"
        )

    def runs(self) -> list[RunState]:
        """Return all runs, the newest first."""
        with self._clear_errors():
            runs = self._client.ListRuns(ListRunsRequest()).run_dict.values()
        return sorted((_state(run_from_proto(run)) for run in runs), key=lambda run: run.began, reverse=True)

    def run(self, run_id: int) -> RunState:
        """Return one run."""
        with self._clear_errors():
            return _state(run_from_proto(self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]))

    def start(self, fab: Fab, settings: Mapping[str, Scalar], app: str = "") -> int:
        """Start a run of an app bundle, or of the stored one of this digest and application id;
        return the run's id."""
        override = user_config_to_proto(dict(settings))
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=override, app_spec=app)
        with self._clear_errors():
            answer = self._client.StartRun(request)
        if not answer.HasField("run_id"):
            raise DeploymentError(f"the SuperLink did not start the run: {answer.note or 'it gives no reason'}")
        return int(answer.run_id)

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        with self._clear_errors():
            if not self._client.StopRun(StopRunRequest(run_id=run_id)).success:
                raise DeploymentError(f"the SuperLink did not stop run {run_id}")

    def log(self, run_id: int, after: float) -> Iterator[tuple[str, float]]:
        """Yield pieces of a run's log as they come, each with its time stamp, until the run or the
        connection ends."""
        with self._clear_errors():
            for answer in self._client.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=after)):
                yield answer.log_output, answer.latest_timestamp

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            said = FlowerError.from_json(error.response.text)
            reason = f"{said.message} {said.public_details or ''}".strip() if said else str(error)
            raise DeploymentError(f"the SuperLink refuses: {reason}") from error
        except (httpx.RequestError, ValueError) as error:
            raise NoAnswer(
                f"the SuperLink at {self._address} does not answer ({error or type(error).__name__}): is "
                "`fedsense coordinator serve` running?"
            ) from error


@contextmanager
def connect(folder: CoordinatorFolder) -> Iterator[Control]:
    """Yield the Control API of a coordinator's own SuperLink. Raises DeploymentError."""
    address = str(folder.read().superlink)
    try:
        certificate = folder.authority_file.read_bytes()
    except OSError as error:
        raise DeploymentError(f"{folder.authority_file} cannot be read ({error.strerror}): {INIT}") from error
    os.environ |= past_proxies(os.environ)
    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=certificate,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="fedsense coordinator")],
    )
    try:
        yield Control(client, address)
    finally:
        client.close()


def _state(run: Run) -> RunState:
    status = ":".join(filter(None, (run.status.status, run.status.sub_status)))
    folder = str(run.override_config.get("run.folder", ""))
    return RunState(run.run_id, status, run.status.details, folder, run.pending_at)


def _fingerprint(key: bytes) -> str:
    """Return the fingerprint of a key as Flower keeps it: PEM."""
    public = serialization.load_pem_public_key(key)
    return fingerprint_of(public) if isinstance(public, ec.EllipticCurvePublicKey) else "?"

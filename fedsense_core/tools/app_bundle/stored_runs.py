"""Start a signed bundle at the coordinator: it is put into the SuperLink's state with its
signatures, and a run of it is asked for by the app's name and the bundle's digest.

A bundle that is sent along with a request carries no signatures, and every SuperNode with trusted
signers refuses it. A request by name alone would be for Flower's hub, which the SuperLink would ask
for another bundle of that name (docs/decisions/signed-app.md). This module leans on Flower's
internals; tests/tools/app_bundle/test_flower_internals.py holds them at the pinned version.
"""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import httpx
from flwr.common.constant import NOOP_FLWR_AID
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab as FabMessage
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories

from fedsense_core.tools.app_bundle.bundle import APP_ID, Bundle, BundleError
from fedsense_core.tools.app_bundle.signatures import Signatures
from fedsense_core.tools.runner.engine import RunFailed

Scalar = bool | int | float | str


def store_signed_bundle(database: Path, bundle: Bundle, signatures: Signatures) -> str:
    """Put ``bundle`` and its signatures into the SuperLink's ``database``; return its digest.

    The SuperLink may be running on it. Raises BundleError where the signatures belong to another
    bundle, the app is not FedSense, or the database cannot be written. Whose signatures they are is
    for institutions to judge.
    """
    signatures.check_bundle(bundle, "signatures")
    if bundle.app_id != APP_ID:
        raise BundleError(f"{bundle.source}: pyproject.toml names {bundle.app_id}, not {APP_ID}: this is another app")
    fab = Fab(bundle.digest, bundle.content, signatures.verifications())
    _check_database(database)
    _, states = get_objectstore_linkstate_factories(str(database), get_federation_manager())
    states.state().store_app(
        fab, NOOP_FEDERATION_ID, APP_ID, TaskType.SERVER_APP, added_by=NOOP_FLWR_AID, is_hub_app=False
    )
    return bundle.digest


def _check_database(database: Path) -> None:
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise BundleError(
            f"{database}: the bundle cannot be stored: {error}. It is the SuperLink's database: give the same file, "
            "and run as the same user"
        ) from None


def start_stored_run(
    address: str, root_certificates: Path | None, digest: str, run_config: Mapping[str, Scalar]
) -> int:
    """Ask the SuperLink at ``address`` (host:port) for a run of the stored bundle with this
    ``digest``; return the run's id.

    ``root_certificates`` is the authority's certificate; None speaks without TLS, on loopback only.
    ``run_config`` maps dotted keys to scalars. Raises RunFailed with the SuperLink's reason.
    """
    request = StartRunRequest(
        app_spec=APP_ID,
        fab=FabMessage(hash_str=digest),  # without content: the stored one with this digest, or none
        override_config=user_config_to_proto(dict(run_config)),
    )
    try:
        answer = _control(address, root_certificates).StartRun(request)
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        reason = said.message if said else error.response.text.strip()[:200] or str(error)
        raise RunFailed(f"the SuperLink at {address} starts no run of bundle {digest[:12]}: {reason}") from None
    except (httpx.HTTPError, OSError, ssl.SSLError) as error:
        raise RunFailed(
            f"no answer from the SuperLink at {address}: {error}. Is it running, with these certificates?"
        ) from None
    if not answer.HasField("run_id"):
        raise RunFailed(f"the SuperLink at {address} started no run of bundle {digest[:12]}, and does not say why")
    return int(answer.run_id)


def _control(address: str, root_certificates: Path | None) -> ControlHttpClient:
    return ControlHttpClient.from_server_address(
        address,
        insecure=root_certificates is None,
        root_certificates=None if root_certificates is None else root_certificates.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )

"""Start a signed bundle at the coordinator: it is put into the SuperLink's state with its
signatures, and a run of it is asked for by the app's name and the bundle's digest.

A bundle that is sent along with a request carries no signatures, and every SuperNode with trusted
signers refuses it. A request by name alone would be for Flower's hub, which the SuperLink would ask
for another bundle of that name (docs/decisions/signed-app.md). This module leans on Flower's
internals; tests/tools/app_bundle/test_flower_internals.py holds them at the pinned version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from flwr.common.constant import NOOP_FLWR_AID
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab as FabMessage
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories

from fedsense_core.tools.app_bundle.bundle import APP_ID, Bundle, BundleError
from fedsense_core.tools.app_bundle.signatures import Signatures

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


def start_stored_run(client: ControlHttpClient, digest: str, run_config: Mapping[str, Scalar]) -> int:
    """Ask the SuperLink that ``client`` speaks to for a run of the stored bundle with this
    ``digest``; return the run's id.

    ``run_config`` maps dotted keys to scalars. Raises BundleError where the SuperLink starts none,
    and httpx's errors where it refuses or does not answer.
    """
    request = StartRunRequest(
        app_spec=APP_ID,
        fab=FabMessage(hash_str=digest),  # without content: the stored one of this digest, or none
        override_config=user_config_to_proto(dict(run_config)),
    )
    answer = client.StartRun(request)
    if not answer.HasField("run_id"):
        raise BundleError(
            f"the SuperLink started no run of bundle {digest[:12]}: {answer.note or 'it gives no reason'}"
        )
    return int(answer.run_id)

"""What signed bundles lean on inside Flower, at the version that the lock file names. An upgrade
that changes it fails here, not at an institution."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.common import constant
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, ErrorCode
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.constant import HUB_APP_REFRESH_INTERVAL
from flwr.supercore.error import FlowerError
from flwr.superlink.config_loader import get_federation_manager, get_objectstore_linkstate_factories
from flwr.superlink.servicer.control.control_handlers import AccountInfo, start_run
from flwr.supernode import start_client_internal

from fedsense_core.tools.app_bundle.building import build
from fedsense_core.tools.app_bundle.bundle import APP_ID, DATE, LARGEST_BUNDLE, Bundle, BundleError
from fedsense_core.tools.app_bundle.signatures import Signatures, sign
from fedsense_core.tools.app_bundle.stored_runs import store_signed_bundle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROOT = Path(__file__).parents[3]
ACCOUNT = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build().bundle


def signed(bundle: Bundle, name: str = "alice") -> Signatures:
    return Signatures(bundle=bundle.digest, signatures={name: sign(bundle, Ed25519PrivateKey.generate())})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """Return a new database of a SuperLink that holds the signed bundle since an hour."""
    path = tmp_path_factory.mktemp("stored") / "superlink.db"
    assert store_signed_bundle(path, bundle, signed(bundle)) == bundle.digest
    update(path, "updated_at = datetime(updated_at, '-1 hour')")
    return path


@pytest.fixture(scope="module")
def state(database: Path) -> LinkState:
    """Return the state as a SuperLink opens it that was restarted meanwhile."""
    return get_objectstore_linkstate_factories(str(database), get_federation_manager())[1].state()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the addresses that were asked; nobody answers."""
    addresses: list[str] = []

    def ask(self: requests.Session, method: str, url: str, **options: object) -> requests.Response:
        addresses.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "request", ask)
    return addresses


def update(database: Path, what: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"UPDATE federation_app SET {what}")


def rows(database: Path, table: str) -> list[dict[str, object]]:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def test_tests_run_the_version_of_the_lock_file() -> None:
    locked = re.search(r"^flwr(?:\[\w+\])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert version("flwr") == locked[1]


def test_stored_bundle_stands_in_flowers_tables_as_no_hub_app(database: Path, bundle: Bundle) -> None:
    (fab,) = rows(database, "fab")
    assert fab.keys() == {"fab_hash", "content", "verifications"}
    assert (fab["fab_hash"], fab["content"]) == (bundle.digest, bundle.content)
    (app,) = rows(database, "federation_app")
    assert app.keys() == {
        *("federation_id", "app_id", "fab_hash", "app_type", "is_hub_app"),
        *("display_name", "description", "color", "added_by", "added_at", "updated_at"),
    }
    assert (app["app_id"], app["fab_hash"], app["is_hub_app"]) == (APP_ID, bundle.digest, 0)


def test_run_of_a_stored_bundle_asks_no_hub_however_old_it_is(
    state: LinkState, bundle: Bundle, asked: list[str], database: Path
) -> None:
    assert HUB_APP_REFRESH_INTERVAL.total_seconds() < 3600, "the row is older than what a hub row would be asked for"
    request = StartRunRequest(app_spec=APP_ID, fab=Fab(hash_str=bundle.digest))
    run = start_run(request, ACCOUNT, state, None).run_id
    assert state.get_run_info(run_ids=[run])[0].fab_hash == bundle.digest
    kept = state.get_fab(bundle.digest)
    assert kept is not None
    assert kept.verifications.keys() == {"valid_license", "alice"}
    assert asked == []


def test_run_by_name_alone_would_ask_the_hub(
    state: LinkState, bundle: Bundle, asked: list[str], database: Path
) -> None:
    with pytest.raises(FlowerError):
        start_run(StartRunRequest(app_spec=APP_ID), ACCOUNT, state, None)
    assert len(asked) == 1
    try:
        update(database, "is_hub_app = 1")
        assert start_run(StartRunRequest(app_spec=APP_ID), ACCOUNT, state, None).run_id
    finally:
        update(database, "is_hub_app = 0")
    deadline = time.monotonic() + 5
    while len(asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(asked) == 2, "a hub row that is older than minutes is asked for in a thread"


def test_bundle_that_was_not_stored_starts_nothing(state: LinkState, bundle: Bundle, asked: list[str]) -> None:
    with pytest.raises(FlowerError, match="not found"):
        start_run(StartRunRequest(app_spec=APP_ID, fab=Fab(hash_str="0" * 64)), ACCOUNT, state, None)
    assert asked == []


def test_storing_again_replaces_bundle_and_signatures(database: Path, bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "superlink.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])
    newer = Bundle.of_files(bundle.files | {"client_app/app.py": b"app = 1\n"})
    store_signed_bundle(copy, newer, signed(newer, "bob"))
    assert [app["fab_hash"] for app in rows(copy, "federation_app")] == [newer.digest]
    names = {fab["fab_hash"]: set(json.loads(str(fab["verifications"]))) for fab in rows(copy, "fab")}
    assert names == {bundle.digest: {"valid_license", "alice"}, newer.digest: {"valid_license", "bob"}}


def test_what_cannot_be_stored_is_refused_with_file_and_reason(bundle: Bundle, tmp_path: Path) -> None:
    other = Bundle.of_files(bundle.files | {"client_app/app.py": b""})
    with pytest.raises(BundleError, match="was signed"):
        store_signed_bundle(tmp_path / "superlink.db", other, signed(bundle))
    foreign = Bundle.of_files(
        {"pyproject.toml": b'[project]\nname = "other"\nversion = "1"\n[tool.flwr.app]\npublisher = "fedsense"\n'}
    )
    with pytest.raises(BundleError, match="names @fedsense/other, not @fedsense/fedsense"):
        store_signed_bundle(tmp_path / "superlink.db", foreign, signed(foreign))
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(BundleError, match=r"text\.db: the bundle cannot be stored: .*not a database"):
        store_signed_bundle(tmp_path / "text.db", bundle, signed(bundle))


def test_constants_are_flowers() -> None:
    assert (DATE, LARGEST_BUNDLE) == (constant.FAB_DATE, constant.FAB_MAX_SIZE)
    assert start_client_internal.FAB_VERIFICATION_ERROR.code == ErrorCode.INVALID_FAB == 7


def test_supernode_with_an_empty_list_would_check_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trusted.yaml"
    path.write_text("{}\n")
    program = importlib.import_module("flwr.supernode.cli.flower_supernode")
    assert program._try_obtain_trusted_entities(path) == {}
    source = inspect.getsource(start_client_internal._pull_and_store_message)
    assert "if trusted_entities:" in source, "why read_trusted refuses an empty file"
    assert source.index("_verify_fab(") < source.index("state.store_fab("), "verified before anything may run it"

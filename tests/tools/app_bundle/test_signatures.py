"""Signatures are made offline and count for Flower's SuperNodes as they count here."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from fedsense_core.tools.app_bundle.bundle import Bundle, BundleError
from fedsense_core.tools.app_bundle.signatures import (
    Signatures,
    add_signature,
    file_beside,
    read_signatures,
    sign,
    verify,
)
from fedsense_core.tools.app_bundle.signed_bundle import read_agreed
from fedsense_core.tools.app_bundle.signer_keys import make_key, read_private_key, read_public_line
from fedsense_core.tools.app_bundle.trusted_signers import distrust, read_trusted, trust, write_trusted

BUNDLE = Bundle.of_files({"pyproject.toml": b"[project]\nversion = '1'\n", "client_app/app.py": b"app = 1\n"})
ALTERED = Bundle.of_files(BUNDLE.files | {"client_app/app.py": b"app = 2\n"})
needs_openssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


class Signer:
    """Somebody with a name and a key in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.file = name, folder / name
        self.public = make_key(self.file)

    def sign(self, bundle: Bundle, path: Path) -> Signatures:
        return add_signature(bundle, path, self.name, sign(bundle, read_private_key(self.file), lambda: 1.8e9))


@pytest.fixture
def alice(tmp_path: Path) -> Signer:
    return Signer("alice", tmp_path)


@pytest.fixture
def bob(tmp_path: Path) -> Signer:
    return Signer("bob", tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_beside(tmp_path / "app.fab")


def flower_verifies(bundle: Bundle, signatures: Signatures, trusted: Mapping[str, str]) -> bool:
    """Return what a SuperNode decides on what the SuperLink hands to it."""
    return _verify_fab(Fab(bundle.digest, bundle.content, signatures.verifications()), dict(trusted))


def test_flower_and_we_trust_the_same_signatures(alice: Signer, bob: Signer, path: Path) -> None:
    alice.sign(BUNDLE, path)
    bob.sign(BUNDLE, path)
    both = read_signatures(path)
    assert {name: entry.signed_at for name, entry in both.signatures.items()} == {"alice": 1.8e9, "bob": 1.8e9}
    assert both.verifications()["valid_license"]
    trusted_by = [
        ({"alice": alice.public}, ["alice"]),
        ({"alice": alice.public, "carol": bob.public}, ["alice"]),
        ({"alice": alice.public, "bob": bob.public}, ["alice", "bob"]),
        ({"alice": bob.public, "bob": bob.public}, ["bob"]),
        ({"alice": bob.public}, []),
        ({"carol": alice.public}, []),
    ]
    for trusted, counting in trusted_by:
        assert flower_verifies(BUNDLE, both, trusted) == bool(counting), trusted
        if counting:
            assert list(verify(BUNDLE, both, trusted, "file")) == counting
        else:
            with pytest.raises(BundleError, match="file: no signature that is trusted"):
                verify(BUNDLE, both, trusted, "file")


def test_altered_bundle_or_time_is_refused_by_both(alice: Signer, path: Path) -> None:
    trusted, signed = {"alice": alice.public}, alice.sign(BUNDLE, path)
    passed_on = signed.model_copy(update={"bundle": ALTERED.digest})
    later = signed.signatures["alice"].model_copy(update={"signed_at": 1_800_000_001})
    backdated = signed.model_copy(update={"signatures": {"alice": later}})
    for bundle, signatures in ((ALTERED, passed_on), (BUNDLE, backdated)):
        assert not flower_verifies(bundle, signatures, trusted)
        with pytest.raises(BundleError, match="the signature of alice was not made by its trusted key"):
            verify(bundle, signatures, trusted, "file")
    with pytest.raises(BundleError, match=f"bundle = '{BUNDLE.digest}' was signed, but the bundle is {ALTERED.digest}"):
        verify(ALTERED, signed, trusted, "file")
    with pytest.raises(BundleError, match="was signed"):
        alice.sign(ALTERED, path)


@needs_openssh
def test_keys_are_those_of_openssh_both_ways(alice: Signer, path: Path, tmp_path: Path) -> None:
    said = subprocess.run(["ssh-keygen", "-y", "-f", alice.file], capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == alice.public.split()
    assert alice.file.stat().st_mode & 0o777 == 0o600
    file = tmp_path / "theirs"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", file], check=True)
    signatures = add_signature(BUNDLE, path, "theirs", sign(BUNDLE, read_private_key(file)))
    trusted = trust(tmp_path / "trusted.yaml", "theirs", read_public_line(tmp_path / "theirs.pub"))
    assert flower_verifies(BUNDLE, signatures, trusted)


def test_flower_reads_the_same_trusted_file(alice: Signer, bob: Signer, tmp_path: Path) -> None:
    path = tmp_path / "trusted.yaml"
    trust(path, "alice", f"{alice.public} alice@somewhere")
    trust(path, "bob", bob.public)
    assert yaml.safe_load(path.read_text()) == read_trusted(path) == {"alice": alice.public, "bob": bob.public}
    assert path.stat().st_mode & 0o777 == 0o600
    assert distrust(path, "alice") == read_trusted(path) == {"bob": bob.public}
    by_hand = f"---\n# ours\n'bob':  {bob.public} # his\nal-ice.2: \"{alice.public} alice@somewhere\"\n"
    for text in (by_hand, json.dumps({"bob": bob.public, "al-ice.2": alice.public}, indent=2)):
        path.write_text(text)
        assert read_trusted(path) == {"bob": bob.public, "al-ice.2": alice.public}


def test_nobody_is_never_written_or_read_as_trusted(alice: Signer, tmp_path: Path) -> None:
    path = tmp_path / "trusted.yaml"
    trust(path, "alice", alice.public)
    before = path.read_bytes()
    with pytest.raises(BundleError, match="a SuperNode that trusts nobody would run every bundle"):
        distrust(path, "alice")
    with pytest.raises(BundleError, match="names nobody"):
        write_trusted(path, {})
    assert path.read_bytes() == before
    for empty in ("", "# nobody\n", "{}\n"):
        path.write_text(empty)
        with pytest.raises(BundleError, match=r"trusted\.yaml: it names nobody"):
            read_trusted(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice", "'alice' is not lines of the form"),
        ("alice: 3", "'alice': 3 is not of the form"),
        ("alice: [KEY]", "is not of the form"),
        ("yes: KEY", "True: 'ssh-ed25519 .* is not of the form"),
        ("'yes': KEY", "'yes' cannot name a signer"),
        ("valid_license: KEY", "'valid_license' cannot name a signer"),
        ("alice: ssh-ed25519 AAAA", "alice: 'ssh-ed25519 AAAA' is no OpenSSH public key"),
        ("alice: KEY: KEY", "mapping values are not allowed"),
    ],
)
def test_wrong_trusted_file_is_refused_with_the_entry(line: str, words: str, alice: Signer, tmp_path: Path) -> None:
    path = tmp_path / "trusted.yaml"
    path.write_text(line.replace("KEY", alice.public))
    with pytest.raises(BundleError, match=rf"trusted\.yaml.*{words}"):
        read_trusted(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: "none", "the file = "),
        (lambda told: told | {"bundle": "abc"}, "bundle = 'abc'"),
        (lambda told: told | {"signature": {}}, "signature = "),
        (lambda told: told | {"signatures": {"alice": {"signed_at": 1}}}, r"signatures\.alice\.signature = "),
        (lambda told: told | {"signatures": {"alice": {"signed_at": -1, "signature": ""}}}, "signed_at = '-1'"),
        (lambda told: told | {"signatures": {"alice": {"signed_at": 1, "signature": "AA=="}}}, "not 64 bytes"),
        (lambda told: told | {"signatures": {"alice": {"signed_at": 1, "signature": "ä"}}}, "not 64 bytes"),
        (lambda told: told | {"signatures": {"valid_license": told["signatures"]["alice"]}}, "cannot name a signer"),
    ],
)
def test_wrong_file_of_signatures_is_refused_with_field_and_value(
    change: Callable[[dict[str, object]], object], words: str, alice: Signer, path: Path
) -> None:
    alice.sign(BUNDLE, path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BundleError, match=rf"app\.signatures\.json: .*{words}"):
        read_signatures(path)


def test_no_signature_at_all_is_refused(alice: Signer, path: Path) -> None:
    with pytest.raises(BundleError, match="signatures is empty"):
        verify(BUNDLE, Signatures(bundle=BUNDLE.digest, signatures={}), {"alice": alice.public}, "file")
    with pytest.raises(BundleError, match=r"app\.signatures\.json: No such file.*fedsense app sign"):
        read_signatures(path)


@needs_openssh
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (["-t", "ed25519", "-N", "secret"], "the key has a passphrase"),
        (["-t", "ecdsa", "-b", "384", "-N", ""], "of type EC, but signatures are Ed25519"),
    ],
)
def test_key_that_cannot_sign_is_refused(kind: list[str], words: str, tmp_path: Path) -> None:
    file = tmp_path / "odd"
    subprocess.run(["ssh-keygen", "-q", *kind, "-f", file], check=True)
    with pytest.raises(BundleError, match=f"odd: .*{words}"):
        read_private_key(file)


def test_key_is_never_replaced_and_what_is_no_key_is_refused(alice: Signer, tmp_path: Path) -> None:
    before = alice.file.read_bytes()
    with pytest.raises(BundleError, match="alice exists: keys are not replaced"):
        make_key(alice.file)
    assert alice.file.read_bytes() == before
    (tmp_path / "text").write_text("no key")
    for name, words in (
        ("text", "no OpenSSH private key"),
        ("none", "No such file"),
        ("alice.pub", "no OpenSSH private"),
    ):
        with pytest.raises(BundleError, match=f"{name}: .*{words}.*fedsense app key"):
            read_private_key(tmp_path / name)
    trust(tmp_path / "trusted.yaml", "alice", alice.public)
    with pytest.raises(BundleError, match=r"another key.*distrust"):
        trust(tmp_path / "trusted.yaml", "alice", Signer("eve", tmp_path).public)


def test_coordinators_folder_holds_one_signed_bundle_or_none(alice: Signer, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    assert read_agreed(app) is None
    (app / "one.fab").write_bytes(BUNDLE.content)
    with pytest.raises(BundleError, match=r"one\.signatures\.json: No such file.*sign the bundle"):
        read_agreed(app)
    signed = alice.sign(BUNDLE, app / "one.signatures.json")
    read = read_agreed(app)
    assert read is not None
    assert (read.bundle.digest, read.signatures) == (BUNDLE.digest, signed)
    (app / "two.fab").write_bytes(BUNDLE.content)
    with pytest.raises(BundleError, match=r"app holds 2 bundles \(one\.fab, two\.fab\)"):
        read_agreed(app)

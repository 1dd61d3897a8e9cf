"""`fedsense app`: build, sign, verify, trust, as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedsense_core.fingerprint import source_digest
from fedsense_core.tools.app_bundle.bundle import Bundle
from fedsense_core.tools.cli import app

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pathspec")
runner = CliRunner()


def said(*arguments: object, status: int = 0) -> str:
    result = runner.invoke(app, ["app", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result.stdout if status == 0 else result.stderr


def test_bundle_goes_from_build_to_trust_by_one_command_a_step(tmp_path: Path) -> None:
    where, size, digest = said("build", "--out", tmp_path / "out").splitlines()
    bundle, key, trusted = Path(where), tmp_path / "releases", tmp_path / "trusted.yaml"
    assert digest == f"sha256 {Bundle.read(bundle).digest}"
    assert f"code {source_digest()}" in size
    assert said("key", key) == key.with_name("releases.pub").read_text()
    assert digest in said("sign", bundle, "--key", key, "--name", "releases")
    assert said("trust", trusted, "releases", f"{key}.pub") == f"{trusted}: releases\n"
    verified = said("verify", bundle, "--trusted", trusted)
    assert "signed by releases at 20" in verified
    assert "the same as the FedSense installed here" in verified

    bundle.write_bytes(bundle.read_bytes() + b"\n")
    assert "the bundle was changed" in said("verify", bundle, "--trusted", trusted, status=2)
    assert "cannot name a signer" in said("sign", bundle, "--key", key, "--name", "two words", status=2)
    assert "no-key: No such file" in said("sign", bundle, "--key", tmp_path / "no-key", "--name", "me", status=2)
    assert "would run every bundle" in said("distrust", trusted, "releases", status=2)

"""The same release is the same bundle, byte for byte, wherever and by whomever it is built."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab

from fedsense_core.errors import ConfigError
from fedsense_core.fingerprint import PACKAGES, PROJECT_FILES, digest_of, digest_of_contents, source_digest
from fedsense_core.tools.app_bundle.building import build
from fedsense_core.tools.app_bundle.bundle import APP_ID, Bundle, BundleError
from fedsense_core.tools.runner.app_folder import assemble

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pathspec")
TINY = {"pyproject.toml": b"[project]\n", "client_app/app.py": b"app = 1\n", "LICENSE": "©\n".encode()}
TINY_DIGEST = "3edc3375ee7f3be0192ace132017b0fba695c09db530edae021a69dd550fc19c"
"""Of `TINY`, from Python 3.11 on Linux: every other Python and machine must come to the same."""


@pytest.fixture(scope="module")
def built() -> Bundle:
    return build().bundle


@pytest.fixture(scope="module")
def tracked(built: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the app under git, as a clone is."""
    root = tmp_path_factory.mktemp("tracked")
    for name, content in built.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", str(root), *command], check=True, capture_output=True)
    return root


@pytest.fixture
def clone(tracked: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tracked, tmp_path / "a clone"))


def test_archive_of_given_files_has_one_digest_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bundle.of_files(TINY).digest == TINY_DIGEST
    monkeypatch.setattr(sys, "platform", "win32")
    assert Bundle.of_files(dict(reversed(TINY.items()))).digest == TINY_DIGEST


def touch(root: Path) -> None:
    for path in root.rglob("*.py"):
        os.utime(path, (1, 1))


def chmod(root: Path) -> None:
    for path in root.rglob("*.py"):
        path.chmod(0o700)


def litter(root: Path) -> None:
    """Leave what editors, Python, notebooks and people leave."""
    for name in (
        *("fedsense_core/scratch.py", "client_app/.ipynb_checkpoints/app-checkpoint.py", "server_app/test_mine.py"),
        *("client_app/app.py~", "client_app/__pycache__/app.cpython-311.pyc", "fedsense_core/data.json", "secret.toml"),
        *("venv/lib/thing.py", "fedsense_core/tools/mine.py", ".env", "notes.md", "fedsense_core/.DS_Store"),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import os\n")


def environment(root: Path) -> None:
    os.environ.update(
        TZ="Pacific/Kiritimati", LC_ALL="tr_TR.UTF-8", LANG="C", GIT_DIR="/nowhere", SOURCE_DATE_EPOCH="1"
    )
    os.umask(0o077)
    os.chdir(root / "client_app")


@pytest.mark.parametrize("change", [touch, chmod, litter, environment])
def test_nothing_but_the_code_changes_the_digest(
    change: Callable[[Path], None], clone: Path, built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TZ", "LC_ALL", "LANG", "GIT_DIR", "SOURCE_DATE_EPOCH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.chdir(clone)
    umask = os.umask(0o022)
    try:
        change(clone)
        again = build(clone)
    finally:
        os.umask(umask)
    assert again.bundle.content == built.content
    named = {"client_app/.ipynb_checkpoints/app-checkpoint.py", "fedsense_core/scratch.py", "server_app/test_mine.py"}
    assert set(again.left_out) == (named if change is litter else set())


def test_bundle_is_that_of_flowers_own_command_but_for_the_form_of_pyproject(built: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(BytesIO(build_fab_from_disk(assemble(tmp_path / "app")))) as archive:
        flowers = {name: archive.read(name) for name in archive.namelist() if not name.startswith(".info/")}
    assert flowers.keys() == built.files.keys()
    assert [name for name, content in flowers.items() if content != built.files[name]] == ["pyproject.toml"]
    assert tomllib.loads(flowers["pyproject.toml"].decode()) == built.project
    assert (built.app_id, built.code) == (APP_ID, digest_of_contents(flowers))


def test_every_copy_of_the_app_has_the_digest_that_server_and_clients_compare(built: Bundle, tmp_path: Path) -> None:
    installed = install_from_fab(built.content, tmp_path)
    wheel = tmp_path / "wheel"
    for package in PACKAGES:
        shutil.copytree(installed / package, wheel / package)
    for name in PROJECT_FILES:
        shutil.copy(installed / name, wheel / "fedsense_core" / name)
        (wheel / name).write_text("another package of this environment put it here\n")
    assert [built.code, digest_of(installed), digest_of(wheel)] == [source_digest()] * 3


def test_the_compared_digest_covers_every_file_of_the_bundle(built: Bundle) -> None:
    assert {"flower.toml", "LICENSE", "pyproject.toml", "client_app/app.py"} < built.files.keys()
    files = dict.fromkeys(built.files, b"")
    digests = {digest_of_contents(files)}
    for name in files:
        digests.add(digest_of_contents(files | {name: b"x = 1\n"}))
        digests.add(digest_of_contents({other: files[other] for other in files if other != name}))
    assert len(digests) == 1 + 2 * len(built.files)


def test_changed_flower_toml_travels_and_one_that_makes_no_run_is_refused(clone: Path, tmp_path: Path) -> None:
    changed = tmp_path / "mine.toml"
    changed.write_text((clone / "flower.toml").read_text().replace("rounds = 6", "rounds = 7"))
    bundle = build(clone, changed).bundle
    assert bundle.files["flower.toml"] == changed.read_bytes()
    assert bundle.code != source_digest()
    changed.write_text("[fedsense.run]\nround = 7\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown setting 'run\.round'\. Did you mean 'run\.rounds'"):
        build(clone, changed)


def lose_flower_toml(root: Path) -> None:
    (root / "flower.toml").unlink()


def lose_the_client(root: Path) -> None:
    shutil.rmtree(root / "client_app")


def end_lines_as_windows(root: Path) -> None:
    path = root / "client_app" / "app.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def break_git(root: Path) -> None:
    (root / ".git" / "index").write_bytes(b"none")


def misname(root: Path) -> None:
    text = (root / "pyproject.toml").read_text()
    (root / "pyproject.toml").write_text(text.replace('name = "fedsense"', 'name = "fed_sense"'))


def track_a_test(root: Path) -> None:
    (root / "client_app" / "test_app.py").write_text("")
    subprocess.run(["git", "-C", str(root), "add", "."], check=True)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lose_flower_toml, r"a clone: no FedSense app: flower\.toml is missing"),
        (lose_the_client, r"no FedSense app: client_app/\*\.py is missing"),
        (end_lines_as_windows, r"client_app/app\.py has Windows line ends.*core\.autocrlf"),
        (break_git, r"git cannot list its files"),
        (misname, r"pyproject\.toml: Flower refuses the app: .*\"fed_sense\" is invalid"),
        (track_a_test, r"test_app\.py: Flower leaves it out of a bundle"),
    ],
)
def test_what_is_no_app_is_refused_with_the_file(harm: Callable[[Path], None], words: str, clone: Path) -> None:
    harm(clone)
    with pytest.raises(BundleError, match=words):
        build(clone)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no bundle"),
        (b"PK\x05\x06" + bytes(18), r"no pyproject\.toml in it"),
        (bytes(10 * 2**20 + 1), "at most 10,485,760"),
        (Bundle.of_files({"pyproject.toml": b"[project]\nname = 3\n"}).content, r"no text tool\.flwr\.app\.publisher"),
        (Bundle.of_files({"pyproject.toml": b"name ="}).content, "is no TOML"),
    ],
)
def test_file_that_is_no_bundle_is_refused_by_name(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.fab"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"odd\.fab: .*{words}"):
        Bundle.read(path).app_id  # noqa: B018


def test_damaged_bundle_is_refused_or_is_another_bundle_and_raises_nothing_else() -> None:
    whole = Bundle.of_files(TINY | {"pyproject.toml": b'[project]\nname = "a"\nversion = "1"\n'})
    generator = random.Random(0)
    for _ in range(500):
        content = bytearray(whole.content)
        content[generator.randrange(len(content))] = generator.randrange(256)
        damaged = Bundle(bytes(content[: generator.choice([len(content), generator.randrange(len(content))])]))
        with suppress(BundleError):
            assert damaged.version
            assert damaged.code
        assert (damaged.digest == whole.digest) == (damaged.content == whole.content)

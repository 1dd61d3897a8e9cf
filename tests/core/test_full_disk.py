"""A full disk is named by its folder and by the option that moves it, wherever a run writes.

The disk is made to say so at the call that writes; what real ones say is written down below.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federation import SITES, Federation, logged, same_bits, write_site
from safetensors import SafetensorError
from typer.testing import CliRunner

import client_app.memory
import fedsense_core.models.stored_stem
import server_app.checkpoints
from fedsense_core.atomic_io import write_npy
from fedsense_core.errors import SiteError
from fedsense_core.full_disk import FullDisk, naming_full_disk
from fedsense_core.tools.cli import app

Make = Callable[..., Federation]
# What safetensors 0.7 and numpy 2.4 say on a full tmpfs; numpy gives no number, and of a short
# array nothing at all.
SAFETENSORS = "Error while serializing: I/O error: No space left on device (os error 28)"
NUMPY = "2097152 requested and 1048448 written"


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrapped(cause: BaseException) -> SiteError:
    error = SiteError("the chip cache cannot be written")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [no_space(), OSError(errno.EDQUOT, "quota"), SafetensorError(SAFETENSORS), wrapped(no_space())],
    ids=["disk", "quota", "safetensors", "wrapped"],
)
def test_want_of_space_is_named_however_it_is_said(error: Exception) -> None:
    with (
        pytest.raises(FullDisk, match=r"/srv/state: its disk is full.*--state"),
        naming_full_disk(Path("/srv/state"), "--state"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EROFS, os.strerror(errno.EROFS)), SafetensorError("I/O error: Read-only file system (os error 30)")],
    ids=["disk", "safetensors"],
)
def test_disk_that_can_only_be_read_is_named_as_such(error: Exception) -> None:
    with (
        pytest.raises(FullDisk, match=r"/srv/state: its disk can only be read\. .* mount it .*--state"),
        naming_full_disk(Path("/srv/state"), "--state"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "denied"), OSError(NUMPY), SafetensorError("InvalidHeader"), wrapped(KeyError("x"))],
    ids=["denied", "without a number", "safetensors", "wrapped"],
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, naming_full_disk(Path("/srv/state"), "--state"):
        raise error
    assert caught.value is error


def test_folder_that_is_named_first_is_the_one() -> None:
    with (
        pytest.raises(FullDisk, match=r"^/tmp: .* TMPDIR$"),
        naming_full_disk(Path("/runs/one"), "--out"),
        naming_full_disk(Path("/tmp"), "TMPDIR"),
    ):
        raise no_space()


def test_array_is_written_as_numpy_does(tmp_path: Path) -> None:
    array, expected = np.arange(5000, dtype="<f4").reshape(10, -1), io.BytesIO()
    write_npy(tmp_path / "array.npy", array)
    np.save(expected, array)
    assert (tmp_path / "array.npy").read_bytes() == expected.getvalue()


@contextmanager
def full(below: Path, only: str = "") -> Iterator[None]:
    """Let every file below a folder, of names that contain ``only``, fail when it is written."""
    real = io.open

    def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        inside = isinstance(file, str | os.PathLike) and Path(file).is_relative_to(below)
        if inside and only in str(file) and set(mode) & set("wax"):
            raise no_space()
        return real(file, mode, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        yield


def failing_save(below: Path) -> Callable[..., None]:
    def save(tensors: Any, path: Path, *rest: Any, **named: Any) -> None:
        if Path(path).is_relative_to(below):
            raise SafetensorError(SAFETENSORS)
        real(tensors, path, *rest, **named)

    real = client_app.memory.save_file
    return save


def at_home(fed: Federation, root: Path) -> Federation:
    for context, site in zip(fed.grid.contexts.values(), SITES, strict=True):
        context.node_config = {"site": str(fed.root / "sites" / f"{site}.toml"), "state-dir": str(root / site)}
    return fed


@pytest.mark.parametrize("home", [False, True], ids=["simulation", "institution"])
def test_institution_without_room_for_its_chips_is_named_and_the_others_train(
    federation: Make, tmp_path: Path, home: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fed = federation(changes={"run.rounds": 1, "federation.min_clients": 2})
    fed = at_home(fed, tmp_path / "home") if home else fed
    state = tmp_path / "home" / "beta" / "beta" if home else fed.folder.path / "clients" / "beta"
    with full(state / "chips"), logged(caplog):
        fed.run()
    (refused,) = fed.lines()[0]["rejected"]
    its_folder = "state-dir of the SuperNode's --node-config (--state of `fedsense institution`)"
    option = its_folder if home else "run.folder (--out)"
    spare = "such as folders run-* of runs that are over"
    words = f"its disk is full. Free some space, {spare}, or choose another folder: {option}"
    assert refused == {"node": "beta", "reason": f"beta: {words}"}
    assert f"{state}: {words}" in caplog.text, "whole in the institution's own log"


def test_institution_without_room_for_its_state_sits_the_round_out(
    federation: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = at_home(federation(changes={"run.rounds": 2}), tmp_path / "home")
    monkeypatch.setattr(client_app.memory, "save_file", failing_save(tmp_path / "home" / "gamma"))
    fed.run()
    for line in fed.lines():
        assert line["accepted"] == ["alpha", "beta"]
        assert "gamma: its disk is full" in line["rejected"][0]["reason"]
        assert "state-dir" in line["rejected"][0]["reason"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """Return the model of two rounds on a disk with room."""
    fed = Federation(tmp_path_factory.mktemp("undisturbed"), changes={"run.rounds": 2})
    fed.run()
    return fed.state().weights


FAILING: dict[str, Callable[[pytest.MonkeyPatch, Path], Any]] = {
    "checkpoint": lambda patch, run: patch.setattr(server_app.checkpoints, "save_file", failing_save(run)),
    "encoder": lambda patch, run: patch.setattr(
        fedsense_core.models.stored_stem, "save_file", failing_save(run / ".writing-encoder")
    ),
}


@pytest.mark.parametrize("what", [*FAILING, "metrics.jsonl", "cache", "spool", "config.json"])
def test_run_without_room_for_its_folder_names_it_and_goes_on_to_the_same_bits_once_there_is_some(
    federation: Make, what: str, undisturbed: torch.Tensor
) -> None:
    fed = federation(changes={"run.rounds": 2})
    run = fed.folder.path
    with pytest.MonkeyPatch.context() as patch:
        if what in FAILING:
            FAILING[what](patch, run)
        words = r"run: its disk is full.*run\.folder \(--out\)"
        with full(run, only="no such file" if what in FAILING else what), pytest.raises(FullDisk, match=words):
            fed.run()
    again = federation(changes={"run.rounds": 2}, first_node=500)
    again.run()
    assert [line["accepted"] for line in again.lines()] == [list(SITES)] * 2
    assert same_bits(again.state().weights, undisturbed)


def test_full_disk_does_not_end_a_run_for_want_of_its_report(federation: Make, capsys: Any) -> None:
    fed = federation(changes={"run.rounds": 1, "run.report": True})
    with full(fed.folder.path, only="report.html"):
        fed.run()
    assert fed.folder.is_finished
    assert f"no report: {fed.folder.path}: its disk is full" in capsys.readouterr().out


@pytest.mark.parametrize("state", [True, False], ids=["state", "temporary"])
def test_check_names_the_option_that_moves_its_chips(tmp_path: Path, state: bool, monkeypatch: Any) -> None:
    site = write_site(tmp_path / "sites", "alpha", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    words = ["data", "check", str(site), "--chip-size", "16", *(["--state", str(tmp_path / "kept")] if state else [])]
    with full(tmp_path / ("kept" if state else "temporary")):
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert f"{tmp_path / ('kept' if state else 'temporary')}: its disk is full" in text
    assert ("another folder: --state" if state else "TMPDIR") in text

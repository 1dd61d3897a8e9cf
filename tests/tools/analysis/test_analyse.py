"""A finished run is analysed end to end, the same way each time, and says why where it cannot
be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from federation import SITES, Federation
from typer.testing import CliRunner

from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.models.pretraining import build_model
from fedsense_core.run_folder import RunFolder
from fedsense_core.run_folder.snapshots import Snapshots, write_snapshots
from fedsense_core.state import State
from fedsense_core.tensors import TensorTable
from fedsense_core.tools.analysis.analyse import analyse_run
from fedsense_core.tools.analysis.analysis_options import AnalysisOptions
from fedsense_core.tools.cli import app
from fedsense_core.tools.reporting.report import write_report
from fedsense_core.tools.reporting.tiles import ReportPictures, Row, Tile, to_rgb
from server_app.checkpoints import Checkpoints

QUICK = AnalysisOptions(radii=(0.003,), noise=(0.1,), draws=2, points=3, hessian_steps=3)
runner = CliRunner()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A run of FedAvg, full models both ways."""
    federation = Federation(tmp_path_factory.mktemp("plain"), {"preset": "fedavg", "run.rounds": 2})
    federation.run()
    return federation


@pytest.fixture
def copy(plain: Federation, tmp_path: Path) -> RunFolder:
    """The same run in a folder that a test may change."""
    shutil.copytree(plain.folder.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def kept_of(federation: Federation) -> Snapshots:
    model = build_model(federation.config)
    return Snapshots(federation.folder.models, TensorTable.of(model, federation.config.model.local_parameters))


@pytest.fixture(scope="module")
def analysis(plain: Federation) -> dict[str, Any]:
    return analyse_run(plain.folder.path, QUICK)


def test_the_global_model_is_the_mean_of_the_clients_that_are_kept(plain: Federation) -> None:
    kept = kept_of(plain)
    clients = dict(kept.clients())
    assert list(clients) == list(SITES)
    assert torch.allclose(torch.stack([*clients.values()]).mean(0), kept.final(), atol=1e-6)
    assert torch.equal(kept.final(), plain.state().weights)
    assert not torch.equal(kept.start(), kept.final())


def test_two_analyses_are_equal_and_fit_into_json(plain: Federation, analysis: dict[str, Any]) -> None:
    passes: list[tuple[int, int]] = []
    again = analyse_run(plain.folder.path, QUICK, lambda done, total: passes.append((done, total)))
    assert json.dumps(analysis, allow_nan=False) == json.dumps(again, allow_nan=False)
    done, total = passes[-1]
    assert done == total
    assert [one for one, _ in passes] == sorted(one for one, _ in passes)


def test_the_metrics_agree_with_one_another(analysis: dict[str, Any]) -> None:
    loss, paths = analysis["loss"], analysis["paths"]
    assert loss["value"] == pytest.approx(sum(loss["by_client"].values()) / len(SITES))
    assert list(paths["clients"]) == list(loss["by_client"]) == analysis["settings"]["institutions"] == list(SITES)
    for name, path in paths["clients"].items():
        assert path["loss"][0] == loss["value"]
        assert path["loss_own"][0] == loss["by_client"][name]
        assert path["distance"] > 0
        assert path["barrier"] >= 0
    assert analysis["hessian"]["largest"]["value"] >= analysis["hessian"]["smallest"]["value"]
    assert analysis["sam"]["relative_radius"] == pytest.approx([0.003])
    assert analysis["cka"]["names"] == ["global", *SITES]
    assert [one["round"] for one in analysis["rounds"]] == [1, 2]
    assert analysis["settings"]["imagery"] == "clients"
    assert analysis["notes"] == []


def test_another_seed_or_size_is_another_loss(plain: Federation, analysis: dict[str, Any]) -> None:
    for options in (AnalysisOptions(**{**vars(QUICK), "seed": 1}), AnalysisOptions(**{**vars(QUICK), "batches": 2})):
        assert analyse_run(plain.folder.path, options)["loss"]["value"] != analysis["loss"]["value"]


def test_the_command_writes_metrics_and_a_report_that_keeps_its_pictures(copy: RunFolder) -> None:
    write_report(copy, ReportPictures(chips=(Row("alpha", (Tile(to_rgb(torch.rand(1, 3, 8, 8))[0]),)),)))
    result = runner.invoke(app, ["analyse", str(copy.path), "--ascents", "2", "--radius", "0.01"])
    assert result.exit_code == 0, result.output
    assert "largest Hessian eigenvalue" in result.stdout
    found = json.loads(copy.analysis_file.read_text(encoding="utf-8"))
    assert found["settings"]["ascents"] == 2
    assert len(found["sam"]["sharpness"]) == 1
    page = copy.report_file.read_text(encoding="utf-8")
    for words in ("Flatness and drift", "From the global model to each client", "Likeness of", "Sample chips: alpha"):
        assert words in page, words


def test_an_own_file_leaves_the_run_as_it_is(copy: RunFolder, tmp_path: Path) -> None:
    before = sorted(copy.path.rglob("*"))
    own = tmp_path / "a new folder" / "own.json"
    result = runner.invoke(app, ["analyse", str(copy.path), "--out", str(own), "--absolute"])
    assert result.exit_code == 0, result.output
    assert json.loads(own.read_text(encoding="utf-8"))["sam"]["radius"] == [0.001, 0.003, 0.01]
    assert sorted(copy.path.rglob("*")) == before


def test_a_deployment_is_analysed_on_the_public_imagery_and_says_so(copy: RunFolder) -> None:
    shutil.rmtree(copy.path / "clients")
    found = analyse_run(copy.path, QUICK)
    assert found["settings"]["imagery"] == "public"
    assert "public imagery" in found["notes"][0]
    assert list(found["loss"]["by_client"]) == ["public"]
    assert found["paths"]["clients"]["alpha"]["loss_own"] is None
    assert found["settings"]["batches_each"] == len(SITES)


def test_imagery_that_is_gone_is_no_smaller_union(copy: RunFolder, plain: Federation, tmp_path: Path) -> None:
    shutil.copytree(plain.root / "sites", tmp_path / "sites")
    shutil.rmtree(tmp_path / "sites" / "beta")
    config = copy.read_config()
    config["federation"]["sites"] = str(tmp_path / "sites")
    copy.config_file.write_text(json.dumps(config), encoding="utf-8")
    result = runner.invoke(app, ["analyse", str(copy.path)])
    assert result.exit_code == 2
    assert "beta" in result.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: run.finished_file.unlink(), "is not finished"),
        (lambda run: run.config_file.unlink(), "holds no run"),
        (lambda run: shutil.rmtree(run.models), "they were removed"),
        (lambda run: run.config_file.write_text('{"run": {"rouns": 2}}'), "does not know (run.rouns)"),
    ],
)
def test_what_cannot_be_analysed_is_said(copy: RunFolder, spoil: Any, words: str) -> None:
    spoil(copy)
    with pytest.raises(CheckpointError, match=re.escape(words)):
        analyse_run(copy.path, QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"draws": 1}, "draws = 1: give 2"), ({"noise": (0.1, 0.0)}, "noise = "), ({"radii": ()}, "radii = ")],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AnalysisOptions(**options)


def test_a_device_that_is_not_here_is_refused(plain: Federation) -> None:
    with pytest.raises(ConfigError, match="give cpu, cuda or auto"):
        analyse_run(plain.folder.path, AnalysisOptions(device="gpu"))


def test_nothing_is_kept_where_it_is_not_wanted(tmp_path: Path) -> None:
    federation = Federation(tmp_path, {"preset": "fedavg", "run.rounds": 1, "run.keep_models": False})
    run = federation.run()
    assert not run.models.exists()
    with pytest.raises(CheckpointError, match=re.escape("run.keep_models = false")):
        analyse_run(run.path, QUICK)


def test_a_run_killed_before_its_last_checkpoint_keeps_the_models_of_the_repeated_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"run.rounds": 2}  # coded both ways, with feedback, guidance and distillation
    whole = Federation(tmp_path / "whole", changes)
    whole.run()

    def killed(self: Checkpoints, server_round: int, state: State) -> Path:
        if server_round == 2:
            raise KeyboardInterrupt
        return save(self, server_round, state)

    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", killed)
    torn = Federation(tmp_path / "torn", changes)
    with pytest.raises(KeyboardInterrupt):
        torn.run()
    assert torn.folder.models.is_dir()
    monkeypatch.undo()
    again = Federation(tmp_path / "torn", changes)
    again.run()
    one, other = kept_of(whole), kept_of(again)
    assert torch.equal(one.final(), other.final())
    assert torch.equal(one.start(), other.start())
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one.clients(), other.clients(), strict=True))
    assert analyse_run(again.folder.path, QUICK)["cka"]["names"] == ["global", *SITES]


def test_a_model_that_diverged_is_said(copy: RunFolder, plain: Federation) -> None:
    kept = kept_of(plain)
    write_snapshots(copy.models, kept.table, start=kept.start(), final=kept.final() * float("nan"), clients=[])
    with pytest.raises(CheckpointError, match="is nan: the run diverged"):
        analyse_run(copy.path, QUICK)


def test_shares_of_a_study_are_analysed_client_by_client(tmp_path: Path) -> None:
    changes = {"preset": "fedavg", "run.rounds": 1, "partition.kind": "iid", "partition.clients": 3}
    run = Federation(tmp_path, changes).run()
    found = analyse_run(run.path, QUICK)
    assert list(found["paths"]["clients"]) == list(found["loss"]["by_client"]) == [f"client-00{i}" for i in range(3)]

import json
from pathlib import Path

import pytest
from federation import write_site
from flwr.common.config import parse_config_args
from typer.testing import CliRunner

from fedsense_core.errors import CheckpointError, ConfigError, SiteError
from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.cli import app
from fedsense_core.tools.runner import running
from fedsense_core.tools.runner.planning import Job, Request, Resources, parse_settings, plan


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        write_site(tmp_path / "sites", name, seed)
    return tmp_path / "sites"


def finish(folder: Path) -> None:
    RunFolder.create(folder, {}).finish()


def test_a_run_has_one_node_per_site_and_waits_for_all_of_them(sites: Path, tmp_path: Path) -> None:
    (job,) = plan(Request(settings={"federation.sites": str(sites), "run.seed": 4}, out=tmp_path / "run"))
    assert job.supernodes == 3
    assert job.settings["federation.min_clients"] == 3
    assert job.settings["run.folder"] == str(tmp_path / "run")
    assert job.rounds > 0


def test_the_user_decides_how_many_clients_to_wait_for(sites: Path) -> None:
    settings = {"federation.sites": str(sites), "federation.min_clients": 2, "federation.wait_s": 1.0}
    (job,) = plan(Request(settings=settings))
    assert job.settings["federation.min_clients"] == 2
    assert job.settings["federation.wait_s"] == 1.0


def test_run_folder_is_named_by_preset_and_seed_and_absolute(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sites)
    (job,) = plan(Request("fedavg", {"federation.sites": str(sites), "run.seed": 3}))
    assert job.folder == sites / "runs" / "fedavg-seed3"


def test_centralised_runs_on_one_node(sites: Path) -> None:
    (job,) = plan(Request("centralised", {"federation.sites": str(sites)}))
    assert job.supernodes == 1
    assert job.settings["federation.min_clients"] == 1


def test_standalone_is_one_run_for_each_site(sites: Path, tmp_path: Path) -> None:
    jobs = plan(Request("standalone", {"federation.sites": str(sites)}, tmp_path / "alone"))
    assert [job.settings["federation.only"] for job in jobs] == ["alpha", "beta", "gamma"]
    assert [job.folder.name for job in jobs] == ["alpha", "beta", "gamma"]
    assert {job.settings["federation.min_clients"] for job in jobs} == {1}
    assert {job.supernodes for job in jobs} == {3}


def test_standalone_of_a_named_site_is_one_run(sites: Path, tmp_path: Path) -> None:
    settings = {"federation.sites": str(sites), "federation.only": "beta"}
    (job,) = plan(Request("standalone", settings, tmp_path / "beta-alone"))
    assert job.folder == tmp_path / "beta-alone"


def test_finished_folder_is_refused_before_anything_starts(sites: Path, tmp_path: Path) -> None:
    finish(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a finished run: choose another folder with --out"):
        plan(Request(settings={"federation.sites": str(sites)}, out=tmp_path / "run"))


def test_half_finished_series_goes_on(sites: Path, tmp_path: Path) -> None:
    finish(tmp_path / "alone" / "alpha")
    jobs = plan(Request("standalone", {"federation.sites": str(sites)}, tmp_path / "alone"))
    assert [job.is_finished for job in jobs] == [True, False, False]


def test_unknown_site_name_is_refused_before_anything_starts(sites: Path) -> None:
    with pytest.raises(SiteError, match=r"'betta'.*Did you mean 'beta'"):
        plan(Request(settings={"federation.sites": str(sites), "federation.only": "betta"}))


def test_two_sites_of_one_name_are_refused_before_anything_starts(sites: Path) -> None:
    (sites / "twin.toml").write_text((sites / "alpha.toml").read_text())
    with pytest.raises(SiteError, match=r"alpha.*alpha\.toml.*twin\.toml"):
        plan(Request(settings={"federation.sites": str(sites)}))


@pytest.mark.parametrize(
    ("bands", "words"),
    [("VV", r"alpha\.toml: sources\[1\].*no band 'VV'.*data\.bands=all"), ("red,gren", "Did you mean 'green'")],
)
def test_a_site_without_a_band_of_the_run_is_refused_before_anything_starts(
    sites: Path, bands: str, words: str
) -> None:
    settings = {"federation.sites": str(sites), "data.bands": bands}
    with pytest.raises(SiteError, match=words):
        plan(Request(settings=settings))


@pytest.mark.parametrize("settings", [{"federation.min_clients": 2}, {"federation.only": "alpha"}])
def test_a_site_without_a_band_is_left_out_of_a_run_that_does_without_it(
    sites: Path, settings: dict[str, int | str]
) -> None:
    card = 'sensor = { kind = "sar", gsd_m = 10.0, bands = [{ name = "VV", polarisation = "VV" }] }'
    beta = sites / "beta.toml"
    beta.write_text(beta.read_text().replace('sensor = "aerial-rgb"', card))
    (job,) = plan(Request(settings={"federation.sites": str(sites), **settings}))
    assert job.supernodes == 3
    with pytest.raises(SiteError, match=r"beta\.toml.*no band 'red'"):
        plan(Request(settings={"federation.sites": str(sites)}))


def test_wrong_value_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"train\.local_steps"):
        plan(Request(settings={"train.local_steps": "many"}))


def test_settings_are_toml_values_or_plain_words() -> None:
    given = ["run.rounds=3", "train.learning_rate=1e-3", "run.report=false", "guidance.kind=sam", 'uplink.codec="none"']
    assert parse_settings(given) == {
        "run.rounds": 3,
        "train.learning_rate": 1e-3,
        "run.report": False,
        "guidance.kind": "sam",
        "uplink.codec": "none",
    }


def test_arguments_of_the_network_are_json_or_a_toml_table_and_reach_the_run(sites: Path) -> None:
    text = '{"layers": [1, 1, 1, 0], "norm_layer": "groupnorm1"}'
    assert parse_settings([f"model.args={text}"]) == {"model.args": text}
    assert parse_settings(["model.args={ layers = [1, 2] }"]) == {"model.args": '{"layers": [1, 2]}'}
    (job,) = plan(Request(settings={"federation.sites": str(sites), **parse_settings([f"model.args={text}"])}))
    assert job.resolved()["model"]["args"] == json.loads(text)
    assert parse_config_args([f"model.args='{text}' run.rounds=3"]) == {"model.args": text, "run.rounds": 3}


def test_weights_are_a_path_of_the_user_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["vit.pth", "timm:vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/x", ""]
    found = [parse_settings([f"model.weights={name}"])["model.weights"] for name in names]
    assert found == [str(tmp_path / "vit.pth"), *names[1:]]


def test_relative_paths_are_those_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse_settings(["federation.sites=2024", "federation.public=sample", 'federation.labelled=""'])
    expected = {"federation.sites": str(tmp_path / "2024"), "federation.public": "sample", "federation.labelled": ""}
    assert found == expected


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("train.local_steps", "key=value"),
        ("trian.local_steps=3", "Did you mean 'train.local_steps'"),
        ('data.bands=["red"]', "--config"),
        ("preset=fedavg", "--preset fedavg"),
        ("run.folder=there", "--out there"),
    ],
)
def test_wrong_setting_is_answered_with_the_remedy(pair: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_settings([pair])


def test_changed_flower_toml_counts_and_is_named_when_broken(sites: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[fedsense.run]\nrounds = 77\n")
    (job,) = plan(Request(settings={"federation.sites": str(sites)}, flower_toml=mine))
    assert job.rounds == 77
    mine.write_text("rounds = = 3")
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        plan(Request(flower_toml=mine))


@pytest.mark.parametrize(
    ("machine", "supernodes", "cpus"), [(2, 5, 1), (2, 1, 2), (16, 5, 3), (1, 3, 1), (8, 8, 1), (8, 200, 1)]
)
def test_clients_share_all_cores(machine: int, supernodes: int, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(machine)), raising=False)
    resources = Resources.shared_by(supernodes, gpus=0.0)
    assert resources.cpus == cpus
    assert f"num-supernodes={supernodes} " in resources.federation_config(supernodes)


@pytest.mark.parametrize(("supernodes", "share"), [(1, 1.0), (2, 0.5), (3, 0.333), (16, 0.062)])
def test_clients_at_work_share_the_gpu(supernodes: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert Resources.shared_by(supernodes).gpus == share


def test_an_empty_labelled_folder_means_no_probes(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Job] = []
    monkeypatch.setattr(running, "run_jobs", lambda jobs, *_: started.extend(jobs) or 0)
    done = CliRunner().invoke(app, ["run", "--engine", "in-process", "--sites", str(sites), "--labelled", ""])
    assert done.exit_code == 0, done.output
    assert started[0].settings["federation.labelled"] == ""

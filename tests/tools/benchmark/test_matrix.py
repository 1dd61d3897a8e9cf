"""The file of a benchmark: how settings lie upon one another, and how mistakes are answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsense_core.config import Config
from fedsense_core.errors import ConfigError
from fedsense_core.tools.benchmark.matrix import Matrix, load_matrix, local_path
from fedsense_core.tools.benchmark.trials import changes, check_trials, effective_settings, trials_of

SHIPPED = Path(__file__).parents[3] / "docs" / "experiments" / "matrix"


def test_settings_lie_upon_preset_matrix_compression_method_and_method_at_the_compression_in_this_order(
    matrix: Matrix,
) -> None:
    trials = {trial.column: trial.resolved() for trial in trials_of(matrix)}
    plain = trials["fedsense@1"]
    assert (plain["run.rounds"], plain["train.local_steps"]) == (3, 4)
    assert (plain["uplink.codec"], plain["downlink.codec"]) == ("eden", "eden"), (
        "the preset's where the compression says nothing"
    )
    assert trials["fedsense@32"]["uplink.codec"] == "none", "the compression is above the preset"
    assert trials["plus@1"]["uplink.codec"] == "trellis", "the method at a compression is above the compression"
    assert trials["plus@32"]["uplink.codec"] == "none"
    assert trials["plus@1"]["preset"] == "fedsense-plus"


def test_a_control_is_its_method_with_some_settings_changed(matrix: Matrix) -> None:
    trials = {trial.column: trial for trial in trials_of(matrix)}
    control, base = trials["no-distillation@32"].resolved(), trials["fedsense@32"].resolved()
    assert {key for key in control if control[key] != base[key]} == {"distillation.kind"}
    assert "no-distillation@1" not in trials


def test_a_control_runs_with_the_seeds_of_its_method(write_matrix: Callable[..., Path]) -> None:
    path = write_matrix(('"fedsense", "fedavg",', '{ name = "fedsense", seeds = [1] }, "fedavg",'))
    assert [trial.seed for trial in trials_of(load_matrix(path), "no-distillation@*")] == [1]


def test_methods_in_which_nothing_travels_run_once_a_seed(matrix: Matrix) -> None:
    names = [trial.name for trial in trials_of(matrix, "*/seed1")]
    once = [name for name in names if "@any" in name]
    assert once == ["standalone@any/seed1", "centralised@any/seed1", "random@any/seed1"]
    assert len(names) == 3 * 2 + 3 + 1


def test_trials_come_seed_by_seed_and_a_glob_chooses_among_them(matrix: Matrix) -> None:
    seeds = [trial.seed for trial in trials_of(matrix)]
    assert seeds == sorted(seeds)
    assert {trial.column for trial in trials_of(matrix, "fedavg@*")} == {"fedavg@32", "fedavg@1"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"fedavg", "standalone"', '"fedavgg", "standalone"', r"methods\.1.*fedavgg.*Did you mean 'fedavg'"),
        ("weight = 3.0", "weigth = 3.0", r"tasks\.masks\.weigth: unknown key\. Did you mean 'weight'"),
        ('base = "fedsense"', 'base = "fedsens"', r"controls\.no-distillation\.base.*Did you mean 'fedsense'"),
        (
            "[controls.no-distillation]",
            '[controls.no]\nbase = "no-distillation"\n[controls.no-distillation]',
            "no.base",
        ),
        (
            '[compressions."32"]',
            "[compressions.any]",
            r"compressions: 'any' stands for methods in which nothing travels",
        ),
        ('compressions = ["32"]', 'compressions = ["any"]', r"no-distillation: compression: 'any' is none of 32, 1"),
        ('compressions = ["32"]', 'compressions = ["32", "1", "32"]', r"no-distillation: a compression is named twice"),
        ('compressions = ["32"]', 'compressions = ["23"]', r"no-distillation: compression: '23' is none of 32, 1"),
        ("[compressions.", "[bits.", "bits is called compressions now"),
        ('compressions = ["32"]', 'wires = ["32"]', r"no-distillation: wires is called compressions now"),
        ("by_compression.", "bits.", r"methods\.4: bits is called by_compression now"),
        ("title", "cell_timeout_s = 9.0\ntitle", "cell_timeout_s is called trial_timeout_s now"),
        ('"plus@1"', '"puls@1"', r"compare: 'puls' is none of.*Did you mean 'plus'"),
        ("weight = 3.0", "weight = -1.0", r"tasks\.masks\.weight.*greater than or equal to 0"),
        ('task = "classification"', 'task = "clasification"', r"tasks\.scenes\.task.*'classification'"),
        ("seeds = [0, 1, 2]", "seeds = []", "seeds"),
        ("title", 'engine = "simulation"\njobs = 2\ntitle', "one trial runs at a time"),
        ("title", "= 3", "not valid TOML"),
    ],
)
def test_a_mistake_is_answered_with_the_file_the_key_and_the_remedy(
    write_matrix: Callable[..., Path], old: str, new: str, words: str
) -> None:
    path = write_matrix((old, new))
    with pytest.raises(ConfigError, match=words) as caught:
        load_matrix(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("local_steps = 4", "local_stepz = 4", "fedsense@32: .*Did you mean 'train.local_steps'"),
        ("[settings]", 'engine = "simulation"\n[settings]\nmodel.projector = [8, 8]', r"model\.projector is a list"),
    ],
)
def test_a_wrong_setting_names_its_trial(write_matrix: Callable[..., Path], old: str, new: str, words: str) -> None:
    matrix = load_matrix(write_matrix((old, new)))
    with pytest.raises(ConfigError, match=words):
        check_trials(matrix, trials_of(matrix))


def test_a_task_may_count_for_nothing_but_not_all_of_them(write_matrix: Callable[..., Path]) -> None:
    text = write_matrix(("weight = 3.0", "weight = 0.0")).read_text()
    assert load_matrix(write_matrix(("weight = 3.0", "weight = 0.0"))).tasks["masks"].weight == 0
    nothing = text.replace("[tasks.scenes]", "[tasks.scenes]\nweight = 0.0")
    path = write_matrix()
    path.write_text(nothing)
    with pytest.raises(ConfigError, match="at least one needs a weight above 0"):
        load_matrix(path)


def test_paths_are_relative_to_the_file_or_given_by_name(tmp_path: Path) -> None:
    assert local_path("sample", tmp_path, {}) == "sample"
    assert local_path("sites", tmp_path, {}) == str(tmp_path / "sites")
    assert local_path("{imagery}/sites", tmp_path, {"imagery": Path("/data")}) == "/data/sites"
    with pytest.raises(ConfigError, match=r"where is imagery\? Give --data imagery=PATH"):
        local_path("{imagery}/sites", tmp_path, {})


def test_a_setting_that_is_new_changes_a_trial_only_where_it_leaves_its_default() -> None:
    now = effective_settings(Config())
    before = {key: value for key, value in now.items() if key != "train.proximal"}
    assert changes(before, now) == []
    assert changes(before, now | {"train.proximal": 0.5}) == ["train.proximal was 0.0, is 0.5"]
    assert changes(before | {"run.rounds": 99}, now) == [f"run.rounds was 99, is {now['run.rounds']}"]


def test_the_example_of_the_page_is_right(tmp_path: Path) -> None:
    page = (SHIPPED.parents[1] / "benchmark.md").read_text(encoding="utf-8")
    (tmp_path / "example.toml").write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    matrix = load_matrix(tmp_path / "example.toml")
    check_trials(matrix, trials_of(matrix))
    assert {trial.column for trial in trials_of(matrix)} > {"mine@1", "no-distillation@32", "random@any"}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_matrices_are_right(path: Path) -> None:
    matrix = load_matrix(path)
    check_trials(matrix, trials_of(matrix))

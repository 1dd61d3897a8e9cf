"""From what a user says to settings: layers, and errors that name the nearest right word."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from typing import get_args

import pytest
from timm.models import build_model_with_cfg, create_model

from fedsense_core.config import FREE_KEYS, Config, flower_defaults, known_keys, resolve
from fedsense_core.config.architecture_args import TIMMS_OWN
from fedsense_core.config.presets import PRESETS
from fedsense_core.config.resolve import RENAMED
from fedsense_core.errors import ConfigError


def test_layers_override_each_other_in_their_order() -> None:
    table = {"train": {"local_steps": 5, "batch_size": 6}, "uplink": {"codec": "bf16"}}
    config = resolve({"preset": "fedavg", "train.batch_size": 7}, table)
    assert config.train.learning_rate == resolve({}, {}).train.learning_rate  # default
    assert config.train.local_steps == 5  # flower.toml over default
    assert config.uplink.codec == "none"  # preset over flower.toml
    assert config.train.batch_size == 7  # run config over all


def test_the_word_preset_leaves_a_key_to_the_layers_below() -> None:
    assert resolve({"uplink.bits": "preset", "train.recipe": "preset"}, {}) == resolve({}, {})


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_valid_configuration(name: str) -> None:
    assert resolve({"preset": name}).preset == name


@pytest.mark.parametrize("name", ["fedavg", "standalone", "centralised"])
def test_baselines_send_full_models_and_nothing_else(name: str) -> None:
    config = resolve({"preset": name}, {})
    assert config.sends_models
    assert config.guidance.kind == "none"
    assert config.distillation.kind == "none"
    assert config.alignment.weight == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train.rounds": 3}, r"unknown setting 'train\.rounds'.*'run\.rounds'"),
        ({"guidnce.radius": 3}, r"'guidance\.radius'"),
        ({"guidance.kind": "shfit"}, r"guidance\.kind = 'shfit'.*'shift'"),
        ({"uplink.codec": "edn"}, r"uplink\.codec = 'edn'.*'eden'"),
        ({"uplink.bits": 9}, r"uplink\.bits = 9.*6, 7 or 8"),
        ({"run.rounds": 0}, r"run\.rounds = 0"),
        ({"run.rounds": "many"}, r"run\.rounds = 'many'"),
        ({"run.rounds": True}, r"run\.rounds = True"),
        ({"run.report": "no"}, r"run\.report = 'no'"),
        ({"train.learning_rate": float("inf")}, r"train\.learning_rate = inf"),
        ({"preset": "fedsens"}, r"unknown preset 'fedsens'. Did you mean 'fedsense'"),
    ],
)
def test_wrong_key_or_value_names_the_nearest_right_one(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(wrong, {})


@pytest.mark.parametrize(("old", "new"), list(RENAMED.items()))
def test_old_names_are_refused_with_the_new_one_named(old: str, new: str) -> None:
    section, field = old.split(".")
    message = rf"{re.escape(old)} is now {re.escape(new)}"
    with pytest.raises(ConfigError, match=message):
        resolve({old: 1}, {})
    with pytest.raises(ConfigError, match=message):
        resolve({}, {section: {field: 1}})  # as flower.toml has it
    assert old not in known_keys()
    assert new in known_keys()


@pytest.mark.parametrize("kind", ["none", "self"])
def test_without_aggregation_public_imagery_must_teach(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"aggregation\.kind = 'none'.*distillation\.kind = '{kind}'.*'ensemble'"):
        resolve({"preset": "flesd", "distillation.kind": kind}, {})


def test_without_aggregation_there_is_no_mean_for_an_outer_optimiser() -> None:
    with pytest.raises(ConfigError, match=r"outer\.kind = 'nesterov'.*aggregation\.kind = 'none'.*'fedavg'"):
        resolve({"preset": "flesd", "outer.kind": "nesterov"}, {})


@pytest.mark.parametrize("control", [{"guidance.sign": -1}, {"guidance.direction": "random"}])
@pytest.mark.parametrize("kind", ["sam", "sam-every-k"])
def test_controls_of_a_global_direction_are_refused_where_there_is_none(kind: str, control: dict[str, object]) -> None:
    key, value = next(iter(control.items()))
    message = rf"guidance\.kind = '{kind}'.*{key} = {value!r}.*'shift' or 'mixed'"
    with pytest.raises(ConfigError, match=message):
        resolve({"guidance.kind": kind, **control}, {})
    for other in ("none", "shift", "mixed"):
        assert resolve({"guidance.kind": other, **control}, {}).guidance.kind == other
    assert resolve({"guidance.kind": kind, "guidance.sign": 0}, {}).guidance.sign == 0


def test_flower_toml_is_read_and_shapes_the_model() -> None:
    args = flower_defaults()["model"]["args"]
    assert resolve({}).model.args == args
    assert resolve({"model.args.stem_width": 32}).model.args == args | {"stem_width": 32}


def test_table_may_be_given_as_json_which_replaces_the_shipped_one() -> None:
    table = {"depths": [1, 2], "act_layer": "gelu", "drop_rate": 0.5}
    assert resolve({"model.args": json.dumps(table)}).model.args == table
    assert resolve({"model.args": "{}"}).model.args == {}
    assert resolve({"model.args": "preset"}).model.args == flower_defaults()["model"]["args"]
    assert resolve({"model.args": json.dumps(table)}, {}).digest == resolve({}, {"model": {"args": table}}).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{depth: 4}",
            r"model\.args = '\{depth: 4\}'.*a JSON object, such as \{\"depth\": 4\}.*property name enclosed",
        ),
        ("[4]", r"model\.args = '\[4\]'.*a JSON object.*none"),
        ("four", r"model\.args = 'four'.*a JSON object"),
        ('{"drop_rate": NaN}', "NaN is no JSON"),
    ],
)
def test_text_that_is_no_json_table_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"model.args": text}, {})


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("in_chans", r"data\.bands"),
        ("num_classes", "no classifier"),
        ("pretrained", r"model\.weights"),
        ("checkpoint_path", r"model\.weights"),
        ("pretrained_cfg_overlay", r"model\.weights"),
        ("features_only", "one vector"),
    ],
)
def test_arguments_that_timm_owns_are_refused_wherever_they_are_given(name: str, instead: str) -> None:
    message = rf"model\.args cannot hold '{name}'.*{instead}"
    with pytest.raises(ConfigError, match=message):
        resolve({}, {"model": {"args": {name: True}}})
    with pytest.raises(ConfigError, match=message):
        resolve({"model.args": json.dumps({"depth": 4, name: None})}, {})


def test_no_argument_of_timms_own_is_forgotten() -> None:
    owned = (
        inspect.signature(create_model).parameters.keys() | inspect.signature(build_model_with_cfg).parameters.keys()
    )
    assert owned - {"kwargs", "model_cls", "variant", "model_cfg"} <= TIMMS_OWN.keys()


def test_digest_follows_what_changes_numbers_and_nothing_else() -> None:
    base = resolve({}, {})
    values = {"run.folder": "/x", "run.resume": "never", "run.report": False, "run.keep_checkpoints": 9}
    values |= {"run.keep_models": False}
    values |= {"federation.min_clients": 2, "federation.quorum": 2, "federation.wait_s": 1, "federation.deadline_s": 2}
    values |= {"federation.retries": 9, "federation.pause_s": 9, "federation.late_factor": 9}
    assert set(values) == set(FREE_KEYS)
    assert all(resolve({key: value}, {}).digest == base.digest for key, value in values.items())
    assert resolve({"train.learning_rate": 0.1}, {}).digest != base.digest


@pytest.mark.parametrize("first", ["fedsense_core.config", "fedsense_core.ssl.settings"])
def test_settings_are_read_without_torch_whatever_is_imported_first(first: str) -> None:
    code = f"import sys, {first}; from fedsense_core.config import Config; Config(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_setting_has_a_sentence() -> None:
    config = type(resolve({}, {}))
    for name, field in config.model_fields.items():
        for inner, info in getattr(field.annotation, "model_fields", {}).items():
            assert info.description, f"{name}.{inner}"
    assert len(known_keys()) > 40


@pytest.mark.parametrize(
    ("changes", "in_use"),
    [
        ({}, False),
        ({"uplink.prediction": True}, True),
        ({"preset": "fedsense-plus"}, True),
        ({"preset": "fedsense-plus", "uplink.prediction": False}, False),
        ({"preset": "fedsense-plus", "uplink.codec": "none"}, False),
        ({"preset": "fedsense-fp32"}, False),
        ({"preset": "fedavg"}, False),
        ({"preset": "fedavg", "uplink.prediction": True}, False),
    ],
)
def test_prediction_is_used_only_where_a_codec_loses_something(changes: dict[str, object], in_use: bool) -> None:
    assert resolve(changes, {}).prediction_in_use == in_use


def test_momentum_travels_only_where_guidance_or_prediction_look_at_it() -> None:
    unguided = {"preset": "fedsense-plus", "guidance.kind": "none", "guidance.momentum": 0.8}
    assert resolve(unguided, {}).momentum_in_use == 0.8
    assert resolve(unguided | {"uplink.prediction": False}, {}).momentum_in_use is None
    assert resolve({"preset": "fedsense-fp32"}, {}).momentum_in_use == 0.9
    assert resolve({"preset": "fedavg"}, {}).momentum_in_use is None


@pytest.mark.parametrize("name", ["flesd", "fedmkd"])
def test_clients_that_only_teach_owe_nothing(name: str) -> None:
    coded = {"preset": name, "uplink.codec": "eden", "uplink.feedback": True, "downlink.codec": "eden"}
    assert not resolve(coded, {}).feedback_in_use
    assert resolve(coded | {"aggregation.kind": "mean"}, {}).feedback_in_use


def test_codecs_that_feedback_cannot_tame_carry_none_and_broadcast_nothing() -> None:
    assert resolve({"uplink.codec": "sign"}, {}).feedback_in_use
    assert not resolve({"uplink.codec": "qsgd", "uplink.bits": 4}, {}).feedback_in_use
    with pytest.raises(ConfigError, match="grows without end under an unbiased codec"):
        resolve({"downlink.codec": "ternary"}, {})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"weights": "x"}, r"cannot hold 'weights', which is not known to shape an architecture.*Allowed are .*depth"),
        ({"embed_dims": 5, "num_head": 2}, r"'num_head'.*Did you mean 'num_heads'"),
        ({"url": "https://example.org"}, "cannot hold 'url'"),
        ({"norm_layer": "https://example.org/x"}, "norm_layer = 'https://example.org/x': texts are names"),
        ({"act_layer": "../../etc/passwd"}, "texts are names"),
        ({"depth": 10**6}, r"model\.args\.depth = '1000000': numbers go up to 512"),
        ({"embed_dim": 10**9}, "numbers go up to 65536"),
        ({"layers": [1] * 65}, "lists have up to 64 values"),
        ({"patch_size": {"a": 1}}, "give a number, a text, true, false, or a list of them"),
    ],
    ids=str,
)
def test_arguments_of_the_model_are_an_allow_list_of_what_shapes_it(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"model.args": json.dumps(args)}, {})


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/data/model", "timm/resnet18", "../resnet18"]
)
def test_architecture_is_a_name_of_timms_registry_and_nothing_to_fetch(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.architecture = .* is not a timm model: .*without a hub"):
        resolve({"model.architecture": name}, {})


def test_every_number_has_an_upper_bound() -> None:
    open_ended = []
    for name, section in Config.model_fields.items():
        fields = getattr(section.annotation, "model_fields", {})
        for key, field in fields.items():
            kinds = {kind for kind in (field.annotation, *get_args(field.annotation)) if kind in (int, float)}
            if kinds and not any(hasattr(rule, "le") or hasattr(rule, "lt") for rule in field.metadata):
                open_ended.append(f"{name}.{key}")
    assert open_ended == []

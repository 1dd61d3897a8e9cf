"""The policy file: what holds without one, and what is said of a wrong one."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from fedsense_core.errors import PolicyError
from fedsense_core.policy import Policy, default_file, read_policy

WRONG = {
    "unknown key": ("[limits]\nlocal_step = 5", r"unknown key 'limits\.local_step'\. Did you mean 'local_steps'"),
    "unknown table": ("[limit]\nminutes = 5", r"unknown key 'limit'\. Did you mean 'limits'"),
    "key of another table": ("minutes = 5", r"unknown key 'minutes'\. It belongs to the table \[limits\]"),
    "wrong type": ("[limits]\nminutes = '5'", r"limits\.minutes = '5': Input should be a valid number"),
    "too small": ("[limits]\nlocal_steps = 0", r"limits\.local_steps = 0: Input should be greater than"),
    "no codec": ("[allowed]\ncodecs = ['edn']", r"allowed\.codecs = 'edn': .*Did you mean 'eden'"),
    "no preset": ("[allowed]\npresets = ['fedsens']", r"'fedsens' is no preset\. Did you mean 'fedsense'"),
    "no protection": (
        "[required]\nprotections = ['secure-aggregation']",
        r"required\.protections = 'secure-aggregation': Input should be 'clip' or 'uplink-clip'",
    ),
    "not TOML": ("[limits\n", "not valid TOML: .*line 1"),
    "not finite": ("[limits]\nminutes = inf", r"limits\.minutes = inf: Input should be a finite number"),
}


def test_the_file_that_is_printed_is_the_policy_that_holds_without_one(tmp_path: Path) -> None:
    text = default_file()
    assert Policy.model_validate(tomllib.loads(text)) == Policy()
    (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
    assert read_policy(tmp_path / "policy.toml") == Policy()
    keys = [line for table in tomllib.loads(text).values() for line in table]
    assert len(keys) == 16
    assert text.count("\n# ") >= len(keys), "each key has its sentence"


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_file_key_value_and_remedy(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match=message) as error:
        read_policy(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("`fedsense institution policy` prints a file to begin with")


def test_a_missing_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyError, match=r"No such file or directory.*nothing is allowed"):
        read_policy(path)
    path.write_text("#" * 70_000, encoding="utf-8")
    with pytest.raises(PolicyError, match="larger than 65536 bytes"):
        read_policy(path)


def test_the_page_for_institutions_lists_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs" / "institutions.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| `?([^|`]*?)`? \|", page.partition("## Site policy")[2], re.MULTILINE))
    defaults = {
        f"{table}.{key}": value
        for table, keys in Policy().model_dump(mode="json").items()
        for key, value in keys.items()
    }
    assert {key: json.loads(value) for key, value in rows.items()} == defaults
    example = re.search(r"```toml\n(.*?)```", page.partition("## Site policy")[2], re.DOTALL)
    assert example
    assert Policy.model_validate(tomllib.loads(example[1])).required.clients == 3

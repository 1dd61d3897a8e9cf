"""Every task that the settings name is written, documented and shown by an example."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

from fedsense_core.tools.cli.evaluate_command import TASKS
from fedsense_core.tools.downstream.names import Mode, TaskName
from fedsense_core.tools.downstream.tasks import DownstreamTask, load_task, shipped_example, task_named

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", get_args(TaskName))
def test_a_name_finds_its_task_with_all_that_it_says_of_itself(name: TaskName) -> None:
    task = task_named(name)
    assert task.name == name
    assert set(task.heads) <= set(get_args(Mode))
    assert all(task.heads.values())
    assert inspect.getdoc(type(task)) != inspect.getdoc(DownstreamTask)
    assert load_task(name, shipped_example(name)).task == name


@pytest.mark.parametrize("name", TASKS)
def test_the_page_names_every_task_and_every_head(name: TaskName) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    heads = {head for heads in task_named(name).heads.values() for head in heads}
    assert [head for head in heads if f"`{head}`" not in row] == []

"""The in-process engine: Flower's Grid without a network, in a process of its own that ends with
its parent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from federation import SITES, TINY, write_site
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from typer.testing import CliRunner

from fedsense_core.run_folder import RunFolder
from fedsense_core.tools.cli import app
from fedsense_core.tools.runner.in_process_grid import InProcessGrid

runner = CliRunner()


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> InProcessGrid:
    """Return a grid of three clients that answer with the name of their partition; the last one
    fails."""
    for key, value in {"_task_id": 1, "_run_id": 1, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, key, value)
    client = ClientApp()

    @client.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 2:
            raise ZeroDivisionError("no chips")
        answer = ConfigRecord({"said": f"{context.run_config['word']} {context.node_config['partition-id']}"})
        return Message(RecordDict({"answer": answer}), reply_to=message)

    return InProcessGrid(client, {"word": "client"}, [{"partition-id": i} for i in range(3)])


def ask(node: int) -> Message:
    return Message(RecordDict(), node, "query")


def test_each_message_is_answered_once_by_its_own_client(grid: InProcessGrid) -> None:
    nodes = list(grid.get_node_ids())
    first, second = grid.push_messages([ask(nodes[1]), ask(nodes[0])])
    (reply,) = grid.pull_messages([second])
    assert reply.content["answer"]["said"] == "client 0"
    assert reply.metadata.src_node_id == nodes[0]
    (reply,) = grid.pull_messages([first, second])
    assert reply.content["answer"]["said"] == "client 1"


def test_a_client_that_raises_answers_with_an_error(grid: InProcessGrid) -> None:
    good, bad = grid.send_and_receive([ask(node) for node in list(grid.get_node_ids())[1:]])
    assert good.has_content()
    assert bad.has_error()
    assert bad.error.reason == "<class 'ZeroDivisionError'>:<'no chips'>"


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    for seed, name in enumerate(SITES):
        write_site(tmp_path / "sites", name, seed)
    write_site(tmp_path, "public", 99)
    return tmp_path


def options(root: Path, **changes: object) -> list[str]:
    """Return the options of a run of seconds."""
    given: Mapping[str, object] = TINY | {"federation.public": root / "public.toml", "run.rounds": 2}
    given = {**given, **{key.replace("__", "."): value for key, value in changes.items()}}
    words = ["--engine", "in-process", "--threads", "1", "--sites", str(root / "sites"), "--out", str(root / "run")]
    for key, value in given.items():
        if key != "model.projector":  # a list
            words += ["--set", f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}"]
    return words


def test_a_run_fails_with_its_reason_and_is_continued_after_its_last_round(sites: Path) -> None:
    public = sites / "public.toml"
    public.rename(sites / "elsewhere.toml")
    failed = runner.invoke(app, ["run", *options(sites)])
    assert failed.exit_code == 1
    assert "public.toml: cannot be read" in failed.stderr
    assert str(sites / "run" / "flower.log") in failed.stderr.replace("\n", "")
    (sites / "elsewhere.toml").rename(public)
    done = runner.invoke(app, ["run", *options(sites)])
    assert done.exit_code == 0, done.output
    assert "round 2/2" in done.stdout
    assert "Traceback" not in done.stdout
    run = RunFolder(sites / "run")
    assert run.is_finished
    assert "round 2/2" in (run.path / "flower.log").read_text(encoding="utf-8")
    assert [line["accepted"] for line in run.read_metrics()[1:]] == [list(SITES)] * 2


def test_unknown_engine_is_refused() -> None:
    result = runner.invoke(app, ["run", "--engine", "in-proces"])
    assert result.exit_code == 2
    assert "simulation, in-process" in result.stderr


CHILD = "from fedsense_core.tools.runner.child import end_with_parent; end_with_parent(); import time; time.sleep(600)"
PARENT = """
import sys, time
from pathlib import Path
from fedsense_core.tools.runner.child import start_child
child = start_child("sleeper", [], Path(sys.argv[1]), 1, output=None)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(CHILD)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = parent.stdout.readline().strip()
    assert _lives(child)
    parent.kill()
    parent.wait()
    _wait_for_the_end(child)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_command_leaves_no_process(sites: Path, number: int) -> None:
    command = [sys.executable, "-c", "from fedsense_core.tools.cli import app; app()", "run"]
    command += options(sites, run__rounds=500)
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert parent.stdout is not None
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while "run folder" not in parent.stdout.readline():
        assert parent.poll() is None
    while not (started := children.read_text().split()):
        time.sleep(0.05)
    parent.send_signal(number)
    output = parent.stdout.read()
    if number != signal.SIGKILL:
        assert parent.wait() == 130, output
        assert "interrupted" in output
    parent.wait()
    for child in started:
        _wait_for_the_end(child)


def _wait_for_the_end(pid: str) -> None:
    deadline = time.monotonic() + 30
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

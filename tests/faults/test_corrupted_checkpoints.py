"""A thousand corruptions of what a run continues from: each is harmless, falls back to the
checkpoint before with a note, or is refused by file and reason. Never other bits, never an error
that names nothing."""

from __future__ import annotations

import logging
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.corruptions import Damage, one_file, two_folders
from federation import SITES, Federation
from flwr.app import Message

from client_app.memory import ClientMemory, Slot
from fedsense_core.errors import CheckpointError
from server_app.checkpoints import MANIFEST, TENSORS, Checkpoints

CHECKPOINTS, MEMORIES, FOLDERS = 700, 200, 100
"""How many corruptions of each: a thousand in all."""
BATCH = 100
SAMPLE = {"checkpoints": 20, "memories": 9, "folders": 1}
"""How many of them the usual run tries."""


def interrupt(task: Message, reply: Message | None) -> Message | None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Killed:
    """A run of three rounds that was killed in the third."""

    fed: Federation
    run: Path
    """A copy of its folder as the kill left it."""
    weights: torch.Tensor
    """In which it ended, once continued."""

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    def again(self, root: Path) -> Federation:
        """Return the killed run once more, to be damaged."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.run, root / "run")
        imagery = {f"federation.{key}": self.fed.run_config[f"federation.{key}"] for key in ("sites", "public")}
        return Federation(root, changes=self.fed.changes | imagery, first_node=900)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    root = tmp_path_factory.mktemp("killed")
    fed = Federation(root / "one", changes={"run.rounds": 3})
    fed.grid.faults = {(3, fed.node("beta")): interrupt}
    with pytest.raises(KeyboardInterrupt):
        fed.run()
    shutil.copytree(fed.folder.path, root / "run")
    fed.grid.faults = {}
    fed.run()
    return Killed(fed, root / "run", fed.state().weights)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """Return what Flower's logger was told as a warning; emptied by who reads it."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flwr")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def same(a: Any, b: Any) -> bool:
    """Return whether two states agree in every bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def named(text: str, path: Path) -> bool:
    """Return whether a text says which file it is about, and what is wrong with it."""
    return str(path.parent) in text and (MANIFEST in text or TENSORS in text)


def judge_checkpoint(checkpoints: Checkpoints, whole: list[Any], done: list[Damage], said: list[str]) -> str:
    """Return what became of a damaged pair of checkpoints: a word for a right outcome, a sentence
    for a wrong one."""
    newest = checkpoints.folder / "round-000002"
    try:
        found = checkpoints.newest()
    except CheckpointError as error:
        return "refused" if named(str(error), newest) else f"refused without file and reason: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if same(found, whole[1]):
        return "harmless"
    if same(found, whole[0]):
        gone = any(damage.kind == "missing" and damage.where == newest.name for damage in done)
        return "fell back" if gone or any(named(text, newest) for text in said) else "fell back without a note"
    return "other bits"


@pytest.mark.parametrize(
    "first",
    [pytest.param(0, id="sample"), *(pytest.param(i, marks=pytest.mark.slow) for i in range(0, CHECKPOINTS, BATCH))],
)
def test_damaged_checkpoint_is_never_taken_for_another(
    killed: Killed, tmp_path: Path, warnings: list[str], first: int, request: pytest.FixtureRequest
) -> None:
    digest, source = killed.fed.config.digest, killed.checkpoints
    whole = [Checkpoints(source, digest).of_round(number) for number in (1, 2)]
    count = SAMPLE["checkpoints"] if "sample" in request.node.name else BATCH
    outcomes: Counter[str] = Counter()
    for number in range(first, first + count):
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(source, tmp_path)
        draw = random.Random(f"checkpoint {number}")
        done = two_folders(tmp_path / "round-000002", tmp_path / "round-000001", draw)
        for damage in done:
            damage.do()
        warnings.clear()
        outcome = judge_checkpoint(Checkpoints(tmp_path, digest), whole, done, warnings)
        assert outcome in ("harmless", "fell back", "refused"), f"{number}: {done}: {outcome}"
        outcomes[outcome] += 1
    assert outcomes["fell back"] > count / 3
    request.node.user_properties.append(("outcomes", dict(outcomes)))


@pytest.mark.parametrize(
    "first",
    [pytest.param(0, id="sample"), *(pytest.param(i, marks=pytest.mark.slow) for i in range(0, MEMORIES, BATCH))],
)
def test_damaged_memory_of_a_client_is_whole_or_gone(
    killed: Killed, tmp_path: Path, first: int, request: pytest.FixtureRequest
) -> None:
    clients = killed.run / "clients"
    (source,) = (clients / "beta").glob("run-*")
    whole = ClientMemory(clients / "beta", int(source.name[4:], 16)).recall(2)
    assert whole is not None
    count = SAMPLE["memories"] if "sample" in request.node.name else BATCH
    outcomes: Counter[str] = Counter()
    for number in range(first, first + count):
        shutil.rmtree(tmp_path, ignore_errors=True)
        shutil.copytree(source, tmp_path / source.name)
        damage = one_file(tmp_path / source.name / "round-000002", random.Random(f"memory {number}"))
        damage.do()
        found = ClientMemory(tmp_path, int(source.name[4:], 16)).recall(2)
        outcome = "gone" if found is None else "harmless" if same_slot(found, whole) else "other bits"
        assert outcome != "other bits", f"{number}: {damage}: {found}"
        outcomes[outcome] += 1
    assert outcomes["gone"] > count / 2
    request.node.user_properties.append(("outcomes", dict(outcomes)))


def same_slot(a: Slot, b: Slot) -> bool:
    parts: list[Callable[[Slot], Any]] = [
        lambda slot: (slot.round, slot.replica.version),
        lambda slot: {"w": slot.replica.weights, "m": slot.replica.momentum},
        lambda slot: slot.uplink,
        lambda slot: slot.optimiser,
        lambda slot: slot.local,
    ]
    return all(same(part(a), part(b)) for part in parts)


@pytest.mark.parametrize(
    "first",
    [pytest.param(0, id="sample"), *(pytest.param(i, marks=pytest.mark.slow) for i in range(0, FOLDERS, 25))],
)
def test_run_whose_files_are_damaged_ends_in_the_same_bits_or_says_why_not(
    killed: Killed, tmp_path: Path, warnings: list[str], first: int, request: pytest.FixtureRequest
) -> None:
    """The whole way: anything below the run folder is damaged, and the run is continued."""
    count = SAMPLE["folders"] if "sample" in request.node.name else 25
    outcomes: Counter[str] = Counter()
    for number in range(first, first + count):
        fed = killed.again(tmp_path / "again")
        draw = random.Random(f"folder {number}")
        folder = draw.choice(
            [
                fed.folder.path,
                *sorted(fed.folder.checkpoints.iterdir()),
                *(path for site in SITES for path in (fed.folder.path / "clients" / site).glob("run-*/round-000002")),
            ]
        )
        damage = one_file(folder, draw)
        damage.do()
        warnings.clear()
        outcome = continued(fed, killed, warnings)
        where = f"{folder.relative_to(fed.folder.path)}/{damage.where}"
        assert outcome in ("same bits", "refused", "noted"), f"{number}: {damage.kind} {where}: {outcome}"
        outcomes[outcome] += 1
    request.node.user_properties.append(("outcomes", dict(outcomes)))


def continued(fed: Federation, killed: Killed, said: list[str]) -> str:
    try:
        fed.run()
    except CheckpointError as error:
        return "refused" if str(fed.folder.path) in str(error) else f"refused without its file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if torch.equal(fed.state().weights, killed.weights):
        return "same bits"
    notes = [note["site"] for line in fed.lines() for note in line["notes"]]
    return "noted" if notes else f"other bits, and no note: {said}"


def test_run_whose_checkpoints_are_all_gone_is_refused_and_keeps_its_record(killed: Killed, tmp_path: Path) -> None:
    fed = killed.again(tmp_path / "again")
    shutil.rmtree(fed.folder.checkpoints)
    before = fed.folder.metrics_file.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"metrics\.jsonl has trained rounds, but .*checkpoints has no checkpoint"
    ):
        fed.run()
    assert fed.folder.metrics_file.read_bytes() == before

"""Going on from an earlier run: a new run folder that begins with all that a checkpoint of the old
one holds, and leaves the old one as it is.

That is the last checkpoint of a finished run, or one of any run that was kept, such as that of the
round before an institution joined, which has left since."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from logging import INFO
from pathlib import Path

from flwr.common.logger import log
from pydantic import ValidationError

from fedsense_core.config import LATER_KEYS, Config
from fedsense_core.errors import CheckpointError, ConfigError
from fedsense_core.run_folder.folder import RunFolder, read_json, write_json
from fedsense_core.state import State
from server_app.checkpoints import Checkpoints

RUN_ID = "earlier_run_id"


@dataclass(frozen=True)
class EarlierRun:
    """A run that another one goes on from."""

    run: RunFolder
    checkpoints: Checkpoints
    round: int = 0
    """The one whose checkpoint is taken over; 0: the newest that is intact."""

    @classmethod
    def before(cls, config: Config) -> EarlierRun | None:
        """Return the run that ``run.continued_from`` names, None where it names none.

        Raises CheckpointError where it has not come so far, or had settings that cannot be
        continued, ConfigError for a wrong path or number of rounds.
        """
        if not config.run.continued_from:
            return None
        path = Path(config.run.continued_from).expanduser()
        if not path.is_absolute():
            raise ConfigError(f"run.continued_from = {config.run.continued_from!r} must be an absolute path")
        run = RunFolder.open(path)
        try:
            earlier = Config.model_validate(run.read_config())
        except ValidationError:
            raise CheckpointError(f"{path} has settings of another release: continue it with that one.") from None
        run.check_settings(config.model_dump(mode="json"), free=LATER_KEYS)
        taken, checkpoints = config.run.rounds_before, Checkpoints(run.checkpoints, earlier.digest)
        if taken == earlier.run.rounds and not run.is_finished:
            raise CheckpointError(f"{path} is not finished: continue it by the command that began it.")
        if taken != earlier.run.rounds and taken not in checkpoints.rounds():
            kept = ", ".join(map(str, checkpoints.rounds()))
            raise ConfigError(
                f"run.rounds_before = {taken}, but {path} has {earlier.run.rounds} rounds, and keeps the checkpoints "
                f"of rounds {kept}: set one of these"
            )
        return cls(run, checkpoints, 0 if taken == earlier.run.rounds else taken)

    def hand_over(self, run: RunFolder, checkpoints: Checkpoints, rounds: int) -> State:
        """Fill the new ``run`` of ``rounds`` rounds in all with what was before, and return the
        state that it begins with.

        It has an id of its own, so that frames and clients' states of the two are never mixed up.
        """
        state = self.checkpoints.of_round(self.round) if self.round else self.checkpoints.newest()
        if state is None:
            raise CheckpointError(f"{self.run.path} has no checkpoint: it cannot be continued.")
        done, earlier_run_id = state["round"], state["run_id"]
        text = schedule(done, rounds)
        run.replace_metrics(line for line in self.run.read_metrics() if line["round"] <= done)
        write_json(
            run.continued_file,
            {"folder": str(self.run.path), "rounds": done, RUN_ID: earlier_run_id, "schedule": text},
        )
        state["run_id"] = secrets.randbits(62)
        state["broadcaster"] = state["broadcaster"] | {"frames": {}}  # they bear the other id: who lags gets a snapshot
        checkpoints.save(done, state)
        log(INFO, "going on from %s after round %d: %s", self.run.path, done, text)
        return state


def earlier_run_id(run: RunFolder) -> int:
    """Return the id of the run that ``run`` goes on from, 0 where it goes on from none."""
    return int((read_json(run.continued_file) or {}).get(RUN_ID, 0))


def schedule(done: int, rounds: int) -> str:
    """Say in one sentence what goes on and what begins anew in a run of ``rounds`` rounds, of which
    ``done`` are over."""
    return (
        "model, outer optimiser and what clients keep go on as they were; the learning rate begins a new schedule, "
        f"warm-up and then a cosine to zero, over rounds {done + 1} to {rounds}"
    )

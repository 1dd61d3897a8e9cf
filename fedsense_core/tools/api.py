"""What a notebook calls: `fedsense_core.run` and `fedsense_core.evaluate`.

They do what the commands of these names do, and raise FedSenseError where those end with a status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fedsense_core.errors import ConfigError, nearest
from fedsense_core.run_folder.folder import Metrics, RunFolder
from fedsense_core.tools.extras import require
from fedsense_core.tools.reporting.run_report import report_at_the_end
from fedsense_core.tools.runner.continuation import going_on
from fedsense_core.tools.runner.log_lines import LogLines
from fedsense_core.tools.runner.planning import PATH_KEYS, Request, Resources, Scalar, absolute, jobs_of
from fedsense_core.tools.runner.running import open_engine

if TYPE_CHECKING:
    from fedsense_core.tools.downstream.intervals import Interval
    from fedsense_core.tools.downstream.names import Mode, TaskName


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path

    @property
    def encoder(self) -> Path:
        """Folder of the exported encoder, for `load_encoder`, `evaluate` and timm."""
        return RunFolder(self.folder).encoder

    @property
    def metrics(self) -> list[Metrics]:
        """One dict for each round; round 0 is the weights before training."""
        return RunFolder(self.folder).read_metrics()

    @property
    def report(self) -> Path | None:
        """The report, a page for a browser; None where none was written."""
        path = RunFolder(self.folder).report_file
        return path if path.exists() else None


@dataclass(frozen=True)
class Score:
    """How well an encoder does a task with one head."""

    task: str
    data: str
    """Name of the data set."""
    mode: str
    head: str
    metric: str
    """What ``value`` is, such as ``macro-f1`` or ``mean-iou``."""
    value: float
    """Mean over seeds."""
    low: float
    high: float
    """Ends of the 95 % interval over groups of neighbouring test images; NaN for a single group."""
    gain: Interval | None
    """Over the same network with random weights, under the same draws; None without control."""
    by_seed: tuple[Mapping[str, float], ...]
    """Every metric, for each seed."""


def run(
    config: Mapping[str, Scalar | Mapping[str, Any]] | None = None,
    *,
    sites: str | Path | None = None,
    public: str | Path | None = None,
    labelled: str | Path | None = None,
    out: str | Path | None = None,
    flower_toml: str | Path | None = None,
    continue_from: str | Path | Run | None = None,
    engine: Literal["in-process", "simulation"] = "in-process",
    threads: int | None = None,
    show: bool = True,
) -> Run:
    """Train a federation on this machine and return what it left.

    ``config`` maps the keys of `docs/configuration.md` to values, such as ``{"preset": "fedavg",
    "run.rounds": 4}``; ``model.args`` may be a dict, and other lists and tables go into a copy of
    ``flower_toml``. ``sites`` is a folder of site files, ``public`` the site file of the public
    imagery, ``labelled`` the folder of the labelled set; each is the shipped sample where it is not
    given. ``out`` is the run folder (None: runs/PRESET-seedSEED). ``continue_from`` is a finished
    run, or its folder, to go on from with its settings, for ``run.rounds`` further rounds. ``show``
    prints the progress.

    Called again, it continues an unfinished run after its last whole round, and returns a finished
    one of the same settings at once. Raises ConfigError or SiteError for what is wrong before
    training begins, CheckpointError for a folder that holds something else, RunFailed where
    training fails.
    """
    given = {"federation.sites": sites, "federation.public": public, "federation.labelled": labelled}
    texts = {key: json.dumps(value) if isinstance(value, Mapping) else value for key, value in (config or {}).items()}
    settings = texts | {key: str(path) for key, path in given.items() if path is not None}
    if "run.folder" in settings:
        raise ConfigError("run.folder has a parameter of its own: out=")
    settings = {key: absolute(str(value)) if key in PATH_KEYS else value for key, value in settings.items()}
    preset = str(settings.pop("preset", "fedsense"))
    request = Request(
        preset,
        settings,
        None if out is None else Path(out),
        flower_toml=None if flower_toml is None else Path(flower_toml),
        engine=engine,
        threads=threads,
    )
    if continue_from is None:
        return _run(request, show)
    before = continue_from.folder if isinstance(continue_from, Run) else Path(continue_from)
    with going_on(before, request) as longer:
        return _run(longer, show)


def _run(request: Request, show: bool) -> Run:
    jobs = jobs_of(request)
    if len(jobs) > 1:
        raise ConfigError("preset 'standalone' is one run for each site: name the site in federation.only")
    (job,) = jobs
    finished = RunFolder(job.folder)
    if finished.is_finished:
        finished.check_settings(job.resolved(request.flower_toml), free=("run.folder",))
        return Run(job.folder)
    with open_engine(request) as opened:
        opened.run(job, Resources.shared_by(job.supernodes), _Progress() if show else lambda line: None)
    report_at_the_end(finished, print if show else lambda text: None)
    return Run(job.folder)


def evaluate(
    encoder: str | Path | Run,
    task: TaskName = "classification",
    data: str | Path | None = None,
    *,
    modes: Sequence[Mode] = ("frozen",),
    heads: Sequence[str] = (),
    seeds: int = 3,
    epochs: int | None = None,
    steps: int | None = None,
    control: bool = True,
    device: str = "auto",
) -> list[Score]:
    """Do a downstream task with an exported encoder and return one score for each mode and head.

    ``encoder`` is a run, or the folder of an exported encoder. ``data`` is a labelled folder (None:
    the small example that ships). ``steps`` is the most that one training takes. With ``control``
    the same network with random weights does the task as well. Nothing is written: `fedsense
    evaluate` keeps tables and pictures. Raises SiteError for data that cannot be read,
    CheckpointError where the folder is no export, ConfigError for an unknown task or head.
    """
    require("evaluate", work="an evaluation")
    from fedsense_core.seeds import seed_of
    from fedsense_core.tools.downstream.encoders import random_encoder
    from fedsense_core.tools.downstream.intervals import gain as gain_of
    from fedsense_core.tools.downstream.intervals import interval
    from fedsense_core.tools.downstream.names import TaskName
    from fedsense_core.tools.downstream.options import TaskOptions
    from fedsense_core.tools.downstream.tasks import evaluate_encoder, load_for, load_task, shipped_example

    if task not in (known := list(get_args(TaskName))):
        raise ConfigError(f"task {task!r} is none of {', '.join(known)}.{nearest(task, known)}")
    folder = encoder.encoder if isinstance(encoder, Run) else Path(encoder).expanduser()
    images = load_task(task, shipped_example(task) if data is None else Path(data).expanduser())
    loaded = load_for(folder, images)
    options = TaskOptions(tuple(modes), tuple(heads), seeds, epochs, steps, device=device)
    results = evaluate_encoder(loaded, images, options)
    others = {}
    if control:
        drawn = random_encoder(folder, loaded, seed_of("random weights"))
        others = {one.key: one for one in evaluate_encoder(drawn, images, options)}
    scores = []
    for one in results:
        found = interval(one)
        gain = gain_of(one, others[one.key]) if others else None
        words = (one.task, one.data, one.mode, one.head, one.metric)
        scores.append(Score(*words, found.value, found.low, found.high, gain, one.scores))
    return scores


class _Progress:
    """Prints a run's log as the command does."""

    def __init__(self) -> None:
        self._lines = LogLines()

    def __call__(self, line: str) -> None:
        text = self._lines.tidy(line)
        if text is not None:
            print(text, flush=True)

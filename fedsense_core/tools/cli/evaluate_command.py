"""``fedsense evaluate``: what an exported encoder is good for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedsense_core import __version__
from fedsense_core.errors import ConfigError, nearest
from fedsense_core.tools.cli.terminal import clear_errors, console, errors
from fedsense_core.tools.downstream.names import TaskName
from fedsense_core.tools.extras import require

if TYPE_CHECKING:
    from fedsense_core.tools.downstream.options import TaskOptions
    from fedsense_core.tools.downstream.result import TaskResult
    from fedsense_core.tools.downstream.samples import TaskData
    from fedsense_core.tools.reporting.tiles import Row

RESULTS, RANDOM, SETTINGS, TABLE, PICTURES = (
    "results.npz",
    "random-weights.npz",
    "settings.json",
    "table.md",
    "pictures",
)
TASKS: tuple[str, ...] = get_args(TaskName)
MODES = {"frozen": ("frozen",), "fine-tuned": ("fine-tuned",), "both": ("frozen", "fine-tuned")}


def evaluate(
    encoder: Annotated[Path, typer.Argument(help="Folder of an exported encoder, such as runs/mine/encoder.")],
    task: Annotated[str, typer.Option("--task", "-t", help=f"One of {', '.join(TASKS)}.")],
    data: Annotated[Path | None, typer.Option(help="Labelled folder. Default: the small shipped example.")] = None,
    mode: Annotated[
        str, typer.Option(help="frozen: only a head learns. fine-tuned: the encoder, too. Or both.")
    ] = "frozen",
    head: Annotated[
        list[str] | None, typer.Option(help="Head of the task, repeatable. Default: all that it has.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings with other random choices.")] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training part. Default: 10, and at least 200 steps.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of one training, at most.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(min=0, help="Of the head; a fine-tuned encoder has a tenth.")] = 1e-3,
    side: Annotated[
        int | None, typer.Option(min=8, help="Side of what the encoder sees, pixels. Default: by the task.")
    ] = None,
    sensor: Annotated[str | None, typer.Option(help="Sensor card of the files. Default: what they say.")] = None,
    bands: Annotated[
        str | None, typer.Option(help="Bands of the files in their order, such as red,green,blue,nir.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random/--no-random", help="Show the same architecture with random weights beside it.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write. Default: evaluation/TASK beside the encoder.")
    ] = None,
) -> None:
    """Do a downstream task with an exported encoder, and show how much of it is due to the
    training.

    Writes table, results and pictures. An interrupted evaluation is continued; other results are
    never overwritten.
    """
    with clear_errors():
        require("evaluate", work="an evaluation")
        from fedsense_core.atomic_io import sha256, write_whole
        from fedsense_core.seeds import seed_of
        from fedsense_core.tools.downstream.encoders import random_encoder
        from fedsense_core.tools.downstream.options import TaskOptions
        from fedsense_core.tools.downstream.reading import Described
        from fedsense_core.tools.downstream.result_table import explanation, markdown, score_rows
        from fedsense_core.tools.downstream.tasks import evaluate_encoder, load_for, load_task, shipped_example

        name = cast(TaskName, _one_of("--task", task, TASKS))
        encoder = encoder.expanduser()
        folder = data.expanduser() if data else shipped_example(name)
        given = {
            "task": name, "data": str(folder.resolve()), "mode": mode, "heads": sorted(head or []), "seeds": seeds,
            "epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "side": side,
            "sensor": sensor, "bands": bands,
        }  # fmt: skip
        modes = MODES[_one_of("--mode", mode, tuple(MODES))]
        options = TaskOptions(
            modes=cast(Any, modes), heads=tuple(head or ()), seeds=seeds, epochs=epochs, most_steps=steps,
            batch_size=batch_size, learning_rate=learning_rate, side=side, device=device,
        )  # fmt: skip
        where = options.torch_device
        out = (out or encoder.resolve().parent / "evaluation" / name).expanduser()
        with _shown_progress() as progress:
            described = Described(sensor, tuple(map(str.strip, bands.split(","))) if bands else ())
            chosen = load_task(name, folder, described)
            loaded = load_for(encoder, chosen)
            given["weights_sha256"] = sha256(encoder / "model.safetensors")
            given |= {"images": chosen.digest, "version": __version__}
            _check_folder(out, given)
            errors.print(escape(f"{_found(chosen)}; on {where}"))
            shown = replace(options, progress=progress("encoder"), show=_drawn_into(out / PICTURES))
            shown = _resumed(out / RESULTS, given, shown)
            plain = _resumed(out / RANDOM, given, replace(options, progress=progress("random weights")))
            results = evaluate_encoder(loaded, chosen, shown)
            control = []
            if random:
                drawn = random_encoder(encoder, loaded, seed_of("random weights"))
                control = evaluate_encoder(drawn, chosen, plain)
        write_whole(out / TABLE, markdown(results, control).encode())
    console.print(_table(f"{results[0].task}: {results[0].data}", score_rows(results, control)))
    console.print(escape(explanation(results)))
    console.print(escape(str(out)))


def _found(data: TaskData[Any]) -> str:
    """Return in one line what a folder was taken for, before the long work begins."""
    folds = getattr(data, "folds", 1)
    images = f"{len(data.train)} training and {len(data.test)} test images"
    if folds > 1:
        images = f"{len(data.train)} images in {folds} folds"
    return f"{data.name}: {images}, {len(data.classes)} classes, bands {', '.join(data.bands)}"


def _resumed(path: Path, given: dict[str, Any], options: TaskOptions) -> TaskOptions:
    """Return options that know the results in ``path``, and keep each new one there, beside its
    settings."""
    from fedsense_core.atomic_io import write_whole
    from fedsense_core.tools.downstream.result import load_results, save_results

    known = load_results(path) if path.exists() else []
    results = list(known)

    def keep(result: TaskResult) -> None:
        results.append(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path.parent / SETTINGS, (json.dumps(given, indent=2) + "\n").encode())
        save_results(path, results)

    return replace(options, finished=known, on_result=keep)


def _check_folder(out: Path, given: dict[str, Any]) -> None:
    """Raise ConfigError where the folder holds anything but an evaluation with these settings."""
    path = out / SETTINGS
    if not path.exists():
        # Pictures may be all that an interrupted evaluation has left.
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out}: is a file. Give a folder with --out.")
        if out.exists() and {one.name for one in out.iterdir()} - {PICTURES}:
            raise ConfigError(f"{out}: holds other files. Give another folder with --out.")
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: is damaged ({error}). Give another folder with --out.") from error
    changed = [key for key in given if not isinstance(known, dict) or known.get(key) != given[key]]
    if changed:
        raise ConfigError(
            f"{out}: holds results with other settings ({', '.join(changed)}). Give another folder with --out, or "
            "remove this one."
        )


def _drawn_into(folder: Path) -> Callable[[str, Sequence[Row]], None]:
    from fedsense_core.tools.downstream.drawing import write_rows

    return lambda name, rows: write_rows(folder / f"{name}.png", rows)


@contextmanager
def _shown_progress() -> Iterator[Callable[[str], Callable[[str, int, int], None]]]:
    """Yield a function that, given whose turn it is, returns what draws a bar on stderr, if that is
    a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("reading the data", total=None)

        def of(who: str) -> Callable[[str, int, int], None]:
            return lambda what, done, total: progress.update(
                bar, description=escape(f"{who}, {what}"), completed=done, total=total
            )

        yield of


def _table(title: str, rows: Sequence[dict[str, str]]) -> Table:
    table = Table(*rows[0], title=escape(title), title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row.values()))
    return table


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{option} {value}: choose one of {', '.join(known)}.{nearest(value, list(known))}")
    return value

"""``fedsense data``: an institution's own imagery, before it takes part."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import typer
from rich.markup import escape

from fedsense_core.full_disk import naming_full_disk
from fedsense_core.tools.cli.terminal import clear_errors, console, progress_bar
from fedsense_core.tools.extras import require

data_app = typer.Typer(
    name="data",
    help="Describe your imagery in a site file, check it, and look at it.",
    no_args_is_help=True,
)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE", help="Site file (TOML) of your institution.")]


@data_app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of rasters; its subfolders are searched.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write. It is never overwritten.")] = Path(
        "site.toml"
    ),
    name: Annotated[
        str | None, typer.Option(help="Name of the site in the federation. Default: that of the folder.")
    ] = None,
) -> None:
    """Draft a site file from the rasters in a folder.

    Only headers are read. Sensors are guessed from names, bands and types; the draft gives the
    reason of each guess beside it, and says what only you can know.
    """
    from fedsense_core.tools.onboarding.drafting import describe, draft_site

    with clear_errors():
        with progress_bar("looking", "files") as progress:
            draft = draft_site(folder.expanduser(), out.expanduser(), name, progress)
        console.print(describe(draft))


@data_app.command()
def check(
    site: SiteFile,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands of the run, such as red,green,blue, or all. Default: the shipped settings'."),
    ] = None,
    chip_size: Annotated[
        int | None, typer.Option(help="Side of chips in the run, pixels. Default: the shipped settings'.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="State folder of your SuperNode: store the chips there for training.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Site file, or folder of a labelled set or task, in which the imagery may be too. Repeatable."
        ),
    ] = None,
) -> None:
    """Say in one page what will be trained on, and what is wrong.

    Reads the site file and its imagery as training does: files used and skipped, chips, valid
    pixels, bands, and values that contradict the sensor card.
    """
    from fedsense_core.tools.onboarding.checking import check_site

    folder, others = state.expanduser() if state else None, [other.expanduser() for other in against or ()]
    with clear_errors(), _chips_on_disk(folder), progress_bar("chipping", "scenes") as progress:
        page = check_site(site.expanduser(), bands, chip_size, folder, progress, others)
    console.print(page.body, soft_wrap=False)
    console.print(page.verdict)


@data_app.command()
def preview(
    site: SiteFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")] = Path("preview.png"),
    chips: Annotated[int, typer.Option(min=1, max=32, help="Chips of each source.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows other chips.")] = 0,
) -> None:
    """Write a picture of random chips of each source.

    True colour where there are red, green and blue; else the picture says which bands it shows.
    """
    with clear_errors():
        require("report", work="a preview")
        from fedsense_core.tools.onboarding.previewing import write_preview

        with _chips_on_disk(None), progress_bar("chipping", "scenes") as progress:
            path = write_preview(site.expanduser(), out.expanduser(), chips, seed, progress)
        console.print(escape(str(path)))


def _chips_on_disk(state: Path | None) -> AbstractContextManager[None]:
    """Name the folder that chips go to, and what moves it, where its disk is full."""
    if state is not None:
        return naming_full_disk(state, "--state")
    return naming_full_disk(Path(gettempdir()), "--state FOLDER of `fedsense data check`, or TMPDIR in the environment")

"""What the pages say is true of the code: blocks run, names and links exist, tables are
complete."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import timm
import torch
import typer.main
from packaging.requirements import Requirement
from packaging.version import Version

from fedsense_core.config import resolve
from fedsense_core.config.presets import PRESETS
from fedsense_core.data.chips.labelled import LabelledFile
from fedsense_core.data.opening import load_site, open_chips
from fedsense_core.data.sites.cards import CARDS
from fedsense_core.data.sites.limits import ReadLimits
from fedsense_core.data.sites.site_file import read_strict_toml
from fedsense_core.encoder import export_encoder
from fedsense_core.models.pretraining import build_model
from fedsense_core.tools.cli import app
from fedsense_core.tools.runner.planning import parse_settings, read_pairs

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXT = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_NAME = re.compile(r"`((?:server_app|client_app|fedsense_core)(?:\.\w+)+)`")
EXTRAS = re.compile(r"""pip install .*?\.\[([\w,-]+)\]""")
PACKAGES = ("server_app", "client_app", "fedsense_core")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SMALL = {"layers": [1, 1, 1, 1], "channels": [32, 32, 32, 32], "norm_layer": "groupnorm"}
RGB = ("red", "green", "blue")
ARCHIVE = "/archive/"
"""Absolute folder in examples; the test puts its own in its place."""


def blocks(language: str) -> list[Any]:
    found = [(name, number, m) for name, text in TEXT.items() for number, m in enumerate(BLOCK.finditer(text), 1)]
    return [pytest.param(m[2], id=f"{name}-{number}") for name, number, m in found if m[1] == language]


def write_raster(path: Path, bands: int, side: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(bands).integers(1, 200, (bands, side, side), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "count": bands,
        "width": side,
        "height": side,
        "dtype": "uint8",
        "photometric": "MINISBLACK",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as a reader of the examples has it: a run's encoder, a site file with
    imagery."""
    folder = tmp_path_factory.mktemp("reader")
    encoder = timm.create_model("resnet18", num_classes=0, in_chans=3, **SMALL)
    export_encoder(
        encoder,
        folder / "runs" / "fedsense-seed0" / "encoder",
        architecture="resnet18",
        model_args=SMALL,
        bands=RGB,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        image_size=32,
    )
    write_raster(folder / "scene.tif", 3)
    (folder / "site.toml").write_text('name = "mine"\n[[sources]]\npaths = ["scene.tif"]\nsensor = "aerial-rgb"\n')
    return folder


@pytest.mark.parametrize("code", blocks("python"))
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_python_block_runs_by_itself(code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    with torch.random.fork_rng():
        exec(compile(code, "block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("text", [block for block in blocks("toml") if "[[sources]]" in block.values[0]])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_site_file_of_a_page_is_accepted_and_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text.replace(ARCHIVE, f"{tmp_path.as_posix()}{ARCHIVE}"), encoding="utf-8")
    for source in tomllib.loads(path.read_text(encoding="utf-8"))["sources"]:
        bands = (
            source.get("bands")
            or (source["sensor"] if isinstance(source["sensor"], dict) else CARDS[source["sensor"]])["bands"]
        )
        for glob in source["paths"]:
            write_raster(tmp_path / glob.replace("**", "some/where").replace("*", "scene"), len(bands))
    chips = open_chips(load_site(path), RGB, 64, None)
    assert len(chips) == len(chips.scene_paths) > 0
    assert chips.skipped == ()


@pytest.mark.parametrize("text", [block for block in blocks("toml") if block.values[0].startswith("[fedsense")])
def test_settings_of_a_page_make_a_model(text: str) -> None:
    config = resolve({}, tomllib.loads(text)["fedsense"])
    images = torch.zeros(2, len(config.data.bands), config.data.view_size, config.data.view_size)
    assert build_model(config).embed(images).shape[0] == 2


@pytest.mark.parametrize("text", [block for block in blocks("toml") if "chip_size" in block.values[0]])
def test_labelled_set_of_a_page_is_accepted(text: str, tmp_path: Path) -> None:
    (tmp_path / "labelled.toml").write_text(text, encoding="utf-8")
    assert read_strict_toml(tmp_path / "labelled.toml", LabelledFile).card("here").names == list(RGB)


def commands() -> Iterator[list[str]]:
    """Yield the `fedsense` commands of all shell blocks."""
    for text in TEXT.values():
        for _, language, code in [(m, m[1], m[2]) for m in BLOCK.finditer(text)]:
            for line in code.replace("\\\n", " ").splitlines() if language == "bash" else ():
                for part in re.split(r"&&|\|", line):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["fedsense"]:
                        yield words[1:]


def test_every_documented_command_and_option_exists() -> None:
    root = typer.main.get_command(app)
    assert len(list(commands())) > 5
    for words in commands():
        command, rest = root.commands[words[0]], list(words[1:])  # type: ignore[attr-defined]
        if "--help" in words:
            continue
        if hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        context = command.make_context(words[0], rest)
        read = parse_settings if words[0] == "run" else read_pairs
        read(context.params.get("settings") or [])
        assert context.params.get("preset", "fedsense") in PRESETS


@pytest.mark.parametrize("name", TEXT)
def test_every_name_of_the_code_exists(name: str) -> None:
    for dotted in CODE_NAME.findall(TEXT[name]):
        assert resolve_name(dotted), f"{name} names {dotted}"


def resolve_name(dotted: str) -> object:
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AssertionError(dotted)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_every_name_that_a_script_imports_exists(path: Path) -> None:
    """The scripts themselves run under ``slow``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                resolve_name(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("name", TEXT)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in LINK.findall(BLOCK.sub("", TEXT[name])):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name} links to {link}"


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_settings_and_the_keys_for_flower_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "write_configuration.py"))
    assert TEXT["docs/configuration.md"] == script["page"](), "run: python docs/write_configuration.py"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert project == script["project"](project), "run: python docs/write_configuration.py"


def test_every_card_and_every_limit_is_described() -> None:
    page = TEXT["docs/institutions.md"]
    assert [name for name in CARDS if f"`{name}`" not in page] == []
    for name, field in ReadLimits.model_fields.items():
        assert f"| `{name}` | {field.default} |" in page


def test_every_preset_and_every_dependency_has_its_line() -> None:
    for page in ("docs/configuration.md", "docs/methods.md"):
        assert [name for name in PRESETS if f"\n| `{name}` |" not in TEXT[page]] == [], page
    extras = [one for group in PROJECT["optional-dependencies"].values() for one in group if "fedsense" not in one]
    names = [re.split(r"[<>=]", one)[0] for one in PROJECT["dependencies"] + extras]
    table = TEXT["docs/development.md"].split("## Dependencies")[1].split("##")[0]
    assert [name for name in names if f"`{name}`" not in table] == []


def test_locked_versions_are_allowed_and_complete() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = [one for name in ("evaluate", "report", "fast") for one in PROJECT["optional-dependencies"][name]]
    for needed in map(Requirement, PROJECT["dependencies"] + extras):
        assert Version(locked[needed.name]) in needed.specifier


def test_what_is_installed_by_the_pages_exists_and_runs_in_continuous_integration() -> None:
    named = {extra for text in TEXT.values() for group in EXTRAS.findall(text) for extra in group.split(",")}
    assert named <= set(PROJECT["optional-dependencies"])
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    # It takes both installs from the README, so that a missing step fails there.
    for begins in (r'^python -m pip install "\.\[simulation,report\]"', r'^python -m pip install "\.\[test\]" && '):
        assert f"'{begins}" in ci
        assert re.search(begins, TEXT["README.md"], re.MULTILINE)
    assert "fedsense run" in ci
    first, second = re.findall(r"^```bash\n(.*?)^```$", TEXT["README.md"], re.MULTILINE | re.DOTALL)[:2]
    assert first.endswith("&& fedsense run\n")
    assert re.search(r"&& python -m pytest( -n 3)?\n$", second)


def test_the_readme_stays_short_and_shows_a_picture() -> None:
    assert len(BLOCK.sub("", TEXT["README.md"]).split()) <= 900
    assert re.search(r"!\[[^\]]+\]\(docs/results/", TEXT["README.md"])


def test_no_page_promises_what_is_not_there() -> None:
    for name, text in TEXT.items():
        assert not re.search(r"coming soon|TODO|FIXME|TBD|lorem", text, re.IGNORECASE), name

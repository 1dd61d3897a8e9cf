"""Links to folders are followed, alike on every version of Python, and never in circles."""

from __future__ import annotations

from pathlib import Path

from fedsense_core.data.sites.patterns import Match, Pattern, find_files
from fedsense_core.data.sites.walking import files_below, folders_below


def tree(root: Path) -> Path:
    """Make an archive whose years lie on other disks, with links back into it."""
    for folder in ("archive/2019", "disk/2020", "disk/2020/deep", "disk/2021"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.tif").touch()
    (root / "archive" / "2020").symlink_to(root / "disk" / "2020")
    (root / "archive" / "again").symlink_to(root / "archive" / "2019")
    (root / "disk" / "2020" / "up").symlink_to(root / "archive")
    (root / "disk" / "2020" / "root").symlink_to(root)
    (root / "disk" / "2020" / "self").symlink_to(".")
    (root / "archive" / "gone").symlink_to(root / "nothing")
    return root / "archive"


def test_every_real_folder_is_entered_once_and_without_a_link_where_there_is_a_way(tmp_path: Path) -> None:
    archive = tree(tmp_path)
    found = [folder.relative_to(archive).as_posix() for folder in folders_below(archive)]
    assert found == [".", "2019", "2020", "2020/deep"]
    assert [file.relative_to(archive).as_posix() for file in files_below(archive)] == [
        "2019/a.tif",
        "2020/a.tif",
        "2020/deep/a.tif",
    ]


def test_globs_follow_links_to_folders(tmp_path: Path) -> None:
    archive = tree(tmp_path)
    found = {
        match.scene: file.relative_to(tmp_path.resolve()).as_posix()
        for file, match in find_files(archive, Pattern("**/{scene}/a.tif"), {}, "test")
    }
    assert found == {"2019": "archive/2019/a.tif", "2020": "disk/2020/a.tif", "deep": "disk/2020/deep/a.tif"}
    assert len(list(find_files(archive, Pattern("*/a.tif"), {}, "test"))) == 2


def test_a_folder_that_may_be_reached_in_many_ways_is_no_trap(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / f"{level}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"{level}" / name).symlink_to(tmp_path / f"{level + 1}")
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "a.tif").touch()
    found = list(find_files(tmp_path / "0", Pattern("**/*.tif"), {}, "test"))
    assert found == [((tmp_path / "30" / "a.tif").resolve(), Match())]

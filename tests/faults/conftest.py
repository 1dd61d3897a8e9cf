"""Points that were shown are not shown again where ``FEDSENSE_FAULTS`` names a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.results import FOLDER, Results

RESULTS = Results(Path(FOLDER)) if FOLDER else None


def point_of(item: pytest.Item) -> str:
    """Return the name of a point: its file and its test."""
    return f"{item.path.stem.removeprefix('test_')}/{item.name.removeprefix('test_')}"


@pytest.fixture(autouse=True)
def _not_again(request: pytest.FixtureRequest) -> None:
    if RESULTS and RESULTS.shown(point_of(request.node)):
        pytest.skip(f"shown with this code: {RESULTS.file}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write down what became of a point."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    ends = report.when == "call" or (report.when == "setup" and report.failed)
    if RESULTS and ends and not report.skipped:
        about = dict(item.user_properties)
        if report.failed and call.excinfo:
            about["error"] = call.excinfo.exconly()[:2000]
        RESULTS.add(point_of(item), report.outcome, report.duration, about)

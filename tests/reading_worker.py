"""Read files that nobody vouches for in a process of little memory: ``python
tests/reading_worker.py FOLDER LOG``.

FOLDER holds one good file, ``0good.tif``, and cases: folders that hold one odd thing each, and
files. Each folder gets a site of its own, with the good file beside it. Files go by the dozen,
since there are thousands; those whose site fails are read again one by one. At last all that
stopped no site share one. LOG gets JSON lines: the names of what is begun, and what became of each.
So the case that kills the worker is known; `read_in_worker` is for the parent, which starts the
worker again after such a death.

The limits: memory of the imports plus 512 MiB of address space; 5 s of CPU and 60 s on the clock
for each site (60 s and 300 s for the last), after which the kernel kills the worker, even inside a
library call that never returns.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GOOD = "0good.tif"
BANDS = ("red", "green", "blue")
CHIP_SIZE = 32
ADDRESS_SPACE = 512 << 20
SITE_CPU_S, SITE_CLOCK_S = 5.0, 60.0
ALL_CPU_S, ALL_CLOCK_S = 60.0, 300.0
DOZEN = 12
TOGETHER = "all together"
"""Name of the site of all cases, among their results."""
MOST_DEATHS = 20
"""After so many the worker is not started again."""


@dataclass(frozen=True)
class Read:
    """What became of one case."""

    name: str
    outcome: str
    """``read``, ``skipped``, ``unlisted`` (there was no file for the site), ``stopped`` (the site
    was refused, as for a wrong band count), ``raised`` (any other error: a fault) or ``died``."""
    said: list[str]
    """Reasons, or the message."""
    faults: list[str]
    """What was wrong with what came back, such as chips that hold numbers that are not finite."""
    chips: dict[str, str] = field(default_factory=dict)
    """Digest of the values of each file's chips, by path."""
    grown: int = 0
    """Bytes by which the worker's largest resident size grew with the site."""
    seconds: float = 0.0
    """CPU time of the site."""


class Log:
    """JSON lines of what was begun and what became of it; a line that is there is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, item: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(item) + "\n")

    def results(self) -> dict[str, Read]:
        return {item["name"]: Read(**item) for item in self._items() if isinstance(item, dict)}

    def begun(self) -> list[list[str]]:
        """Return the names of the cases of each site that was begun, in order."""
        return [item for item in self._items() if isinstance(item, list)]

    def _items(self) -> list[Any]:
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        return [json.loads(line) for line in lines]


def read_in_worker(folder: Path, path: Path, worker: Path = Path(__file__)) -> dict[str, Read]:
    """Read every case of ``folder`` in a worker process; return what became of each, by name.

    Raises RuntimeError when the worker fails by a fault of its own.
    """
    log = Log(path)
    for _ in range(MOST_DEATHS):
        command = [sys.executable, str(worker), str(folder), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, check=False)
        if done.returncode == 0:
            break
        begun = log.begun()
        if done.returncode > 0 or not begun:
            raise RuntimeError(f"the worker itself failed: {done.stderr[-3000:]}")
        if len(begun[-1]) == 1:
            (name,) = begun[-1]
            log.add(asdict(Read(name, "died", [f"by signal {signal.Signals(-done.returncode).name}"], [])))
    return log.results()


class Reader:
    """Reads cases beside the good file, in this process."""

    def __init__(self, folder: Path, log: Path) -> None:
        # Here, not above: the parent, a test, needs none of it.
        from fedsense_core.data.opening import load_site, open_chips
        from fedsense_core.errors import SiteError

        self._load, self._open, self._refused = load_site, open_chips, SiteError
        self._folder = folder
        self._log = Log(log)
        self._site_file = log.with_suffix(".toml")
        self._good = self._digests(self._chips([])[1])

    def run(self) -> None:
        """Read what the log does not know yet."""
        names = sorted(path.name for path in self._folder.iterdir() if path.name != GOOD)
        left = [name for name in names if name not in self._log.results()]
        failed = {name for group in self._log.begun() for name in group}
        alone = [name for name in left if name in failed or (self._folder / name).is_dir()]
        others = [name for name in left if name not in alone]
        for group in [*([name] for name in alone), *(others[i : i + DOZEN] for i in range(0, len(others), DOZEN))]:
            self._read(group)
        found = self._log.results()
        if TOGETHER not in found:
            self._log.add([TOGETHER])
            calm = [name for name in names if found[name].outcome in ("read", "skipped")]
            self._record([TOGETHER], calm, ALL_CPU_S, ALL_CLOCK_S)

    def _read(self, group: Sequence[str]) -> None:
        self._log.add(group)
        if not self._record(group, group, SITE_CPU_S, SITE_CLOCK_S):
            for name in group:
                self._read([name])

    def _record(self, names: Sequence[str], cases: Sequence[str], cpu_s: float, clock_s: float) -> bool:
        """Read one site and note what became of each of ``names``; False if it failed and there are
        several."""
        before, began = _peak(), time.process_time()
        alarm(cpu_s, clock_s)
        try:
            site, chips = self._chips(cases)
            found = self._results(names, site, chips)
        except Exception as error:  # the very thing that is looked for
            if len(names) > 1:
                return False
            refused = isinstance(error, self._refused)
            said = str(error) if refused else f"{type(error).__name__}: {error}"
            found = [Read(names[0], "stopped" if refused else "raised", [said], [])]
        alarm(0, 0)
        cost = {"grown": _peak() - before, "seconds": (time.process_time() - began) / len(names)}
        for number, item in enumerate(found):
            self._log.add(asdict(item) | cost | ({"grown": 0} if number else {}))
        return True

    def _chips(self, cases: Sequence[str]) -> tuple[Any, Any]:
        globs = [f"{case}/*" if (self._folder / case).is_dir() else case for case in (GOOD, *cases)]
        paths = json.dumps([str(self._folder / glob) for glob in globs])
        text = f'name = "hostile"\n[[sources]]\nsensor = "rgb"\npaths = {paths}\n'
        self._site_file.write_text(text, encoding="utf-8")
        site = self._load(self._site_file)
        return site, self._open(site, BANDS, CHIP_SIZE, None)

    def _digests(self, chips: Any) -> dict[str, str]:
        # float32 holds every type of imagery: the type of all chips depends on the other files.
        values = chips.read(range(len(chips))).numpy().astype("float32")
        digests = [hashlib.sha256(values[chips.scene == i]).hexdigest() for i in range(len(chips.scene_paths))]
        return dict(zip(chips.scene_paths, digests, strict=True))

    def _results(self, names: Sequence[str], site: Any, chips: Any) -> list[Read]:
        """Return what became of the cases of one site. A case alone is all that the site holds
        beside the good file."""
        digests, reasons = self._digests(chips), {item.path: item.reason for item in chips.skipped}
        faults = self._faults(site, chips, digests, reasons)
        found = []
        for name in names:
            mine = {*digests, *reasons} - self._good.keys() if len(names) == 1 else {str(self._folder / name)}
            used = {path: digest for path, digest in digests.items() if path in mine}
            said = [reason for path, reason in reasons.items() if path in mine]
            found.append(Read(name, "read" if used else "skipped" if said else "unlisted", said, faults, used))
        return found

    def _faults(self, site: Any, chips: Any, digests: dict[str, str], reasons: dict[str, str]) -> list[str]:
        stored = chips.read(range(len(chips)))
        checks = {
            "the good file's chips changed": self._good.items() <= digests.items(),
            "files that are neither read nor named": {*digests, *reasons} == set(map(str, site.sources[0].files)),
            "a file that is read and yields nothing": set(chips.scene.tolist()) == set(range(len(digests))),
            "chips of a wrong shape": stored.shape == (len(chips), len(BANDS), CHIP_SIZE, CHIP_SIZE),
            "chips that are not finite": bool(stored.isfinite().all()),
            "batches that are not finite": bool(chips.batch(range(len(chips))).isfinite().all()),
        }
        return [fault for fault, right in checks.items() if not right]


def alarm(cpu_s: float, clock_s: float) -> None:
    """Have the kernel end this process then; 0 means never."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, clock_s)


def limit_memory() -> None:
    """Leave this process little more address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    reader = Reader(Path(sys.argv[1]), Path(sys.argv[2]))
    limit_memory()
    reader.run()

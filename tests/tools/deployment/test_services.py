"""The units, compose files and scripts that keep a deployment running: as safe as they say, and
calls that FedSense understands."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

from fedsense_core.tools.cli import app

SHIPPED = Path(__file__).parents[3] / "docs" / "deployment"
UNITS = sorted((SHIPPED / "systemd").glob("*.service"))
MAKES_MACHINE_CODE = {"fedsense-coordinator-superexec", "fedsense-institution-superexec", "fedsense-coordinator-resume"}
REACHES_THE_NETWORK = {"fedsense-coordinator-proxy", "fedsense-institution-supernode"}
SBATCH = SHIPPED / "cluster" / "institution.sbatch"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no program systemd-analyze: install the system's package systemd"
)


class Unit(configparser.RawConfigParser):
    """A unit file: a key may be there twice."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read(path, encoding="utf-8")


@needs_systemd
def test_every_unit_is_ok_by_systemds_own_measure() -> None:
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=40", *map(str, UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("→ Overall exposure level") == len(UNITS) == 6
    assert done.stdout.count(" OK ") == 6


@needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in UNITS:  # systemd looks whether the program is there
        text = unit.read_text(encoding="utf-8").replace("/opt/fedsense/bin/fedsense", str(shutil.which("true")))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.service")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_unit_may_do_what_its_program_needs_and_no_more(path: Path) -> None:
    service = Unit(path)["Service"]
    role = path.stem.split("-")[1]
    assert service["User"] == service["Group"] == f"fedsense-{role}"
    assert service["StateDirectory"] == service["CacheDirectory"] == f"fedsense/{role}"
    assert service["ProtectProc"] == "invisible"
    text = path.read_text(encoding="utf-8")
    makes_code = path.stem in MAKES_MACHINE_CODE
    assert ("\nMemoryDenyWriteExecute=yes" in text) is not makes_code
    for name in ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
        assert (f"{name}=/var/cache/fedsense/{role}/" in text) is makes_code
    assert ("\nDeviceAllow=char-nvidia* rw" in text) is path.stem.endswith("superexec")
    assert (service.get("IPAddressDeny") == "any") is (path.stem not in REACHES_THE_NETWORK)


def test_compose_gives_every_part_nothing_but_its_folders_and_the_loopback_of_its_role() -> None:
    for role, first in (("coordinator", "superlink"), ("institution", "supernode")):
        services = yaml.safe_load((SHIPPED / "compose" / f"{role}.yaml").read_text(encoding="utf-8"))["services"]
        assert all(service["cap_drop"] == ["ALL"] and service["read_only"] for service in services.values())
        assert all("no-new-privileges:true" in service["security_opt"] for service in services.values())
        others = [service.get("network_mode") for name, service in services.items() if name != first]
        assert set(others) == {f"service:{first}"}
        assert [name for name, service in services.items() if "ports" in service] == ["superlink"] * (role[0] == "c")


def calls() -> Iterator[tuple[str, list[str]]]:
    """Yield (file, words after ``fedsense``) of every call in the shipped files and pages."""
    for unit in UNITS:
        yield unit.name, shlex.split(Unit(unit)["Service"]["ExecStart"])[1:]
    for path in sorted((SHIPPED / "compose").glob("*.yaml")):
        for service in yaml.safe_load(path.read_text(encoding="utf-8"))["services"].values():
            if "command" in service:
                yield path.name, service["command"]
    yield SBATCH.name, re.search(r'"\$\{command\[@\]\}" (institution.*) &', SBATCH.read_text("utf-8"))[1].split()  # type: ignore[index]
    for page in sorted(SHIPPED.glob("*.md")):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for call in re.findall(
            r"^(?:\S+ )*(?:\S*/bin/)?fedsense ((?:coordinator|institution) .*)$", text, re.MULTILINE
        ):
            yield page.name, shlex.split(call, comments=True)


def test_every_call_is_one_that_fedsense_understands() -> None:
    assert {name for name, _ in calls()} >= {unit.name for unit in UNITS} | {"coordinator.yaml", "institution.yaml"}
    root = typer.main.get_command(app)
    for _, (group, command, *rest) in calls():
        root.commands[group].commands[command].make_context(command, rest)  # type: ignore[attr-defined]


FEDSENSE = """\
#!/usr/bin/env bash
trap 'echo signed off; exit 0' TERM
echo "$* in $NUMBA_CACHE_DIR"
[[ -z ${FAILS:-} ]] || exit "$FAILS"
while :; do sleep 0.02; done
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a SuperNode and a Slurm that only say what they were asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("fedsense", FEDSENSE), ("scontrol", '#!/usr/bin/env bash\necho "scontrol $*"\n')):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_TMPDIR": str(scratch)}
    return dict(os.environ) | own | {"STATE": "/srv/state"}


@pytest.mark.parametrize(("number", "queues_again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_job_signs_off_before_its_limit_and_queues_again(
    cluster: dict[str, str], number: signal.Signals, queues_again: bool
) -> None:
    with subprocess.Popen(["bash", str(SBATCH)], env=cluster, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        head = [job.stdout.readline(), job.stdout.readline()]
        job.send_signal(number)
        rest = job.stdout.read()
    assert head[1].startswith("institution serve --state /srv/state in " + cluster["SLURM_TMPDIR"])
    assert job.returncode == 0
    assert "signed off" in rest
    assert ("scontrol requeue 7" in rest) is queues_again
    assert list(Path(cluster["SLURM_TMPDIR"]).iterdir()) == []


def test_job_whose_supernode_ends_by_itself_ends_with_its_status(cluster: dict[str, str]) -> None:
    cluster["FAILS"] = "5"
    done = subprocess.run(["bash", str(SBATCH)], env=cluster, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "ended by itself, with status 5" in done.stdout
    assert "requeue" not in done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no program shellcheck: install the system's package")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(["shellcheck", str(SBATCH)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")

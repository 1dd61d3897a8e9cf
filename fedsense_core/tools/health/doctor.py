"""``fedsense doctor``: everything that a role needs, looked at one after the other, before a run
does."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedsense_core.config import resolve
from fedsense_core.data.opening import load_site
from fedsense_core.device import chosen_device
from fedsense_core.errors import FedSenseError
from fedsense_core.run_folder.formatting import human_bytes, human_seconds
from fedsense_core.tools.app_bundle.trusted_signers import read_trusted
from fedsense_core.tools.deployment.addresses import parse_address
from fedsense_core.tools.deployment.certificate_checks import check_server, expiry_warning, read_certificate
from fedsense_core.tools.deployment.control import connect
from fedsense_core.tools.deployment.coordinator_folder import INIT, LOOPBACK, CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.deployment.institution_folder import JOIN, InstitutionFolder
from fedsense_core.tools.deployment.joining import RENEWED_BY
from fedsense_core.tools.deployment.node_keys import read_private_key, read_public_key
from fedsense_core.tools.deployment.private_files import read_private
from fedsense_core.tools.deployment.setting_up import RENEW, RENEW_AUTHORITY
from fedsense_core.tools.deployment.training import tables_of
from fedsense_core.tools.health.connection import closed_control, connection_findings
from fedsense_core.tools.health.dry_round import dry_round
from fedsense_core.tools.health.findings import Doubt, Finding, found
from fedsense_core.tools.health.versions import check_flower, check_packages, locked
from fedsense_core.tools.onboarding.checking import check_bands
from fedsense_core.tools.runner.planning import Scalar

LITTLE_DISK = 5e9
"""Bytes of free space below which a warning is due; a run of a large model needs more."""
LITTLE_MEMORY = 4e9
POLICY = "policy.toml"
KEY_REMEDY = f"restore it from a backup; else {JOIN}, and the coordinator has to admit a new key"


@dataclass(frozen=True)
class RunSettings:
    """The settings of the run that is to come."""

    settings: Mapping[str, Scalar] = field(default_factory=dict)
    flower_toml: Path | None = None
    are_given: bool = False
    """Whether somebody gave any; else they are the shipped ones."""


def institution_findings(
    folder: InstitutionFolder, run: RunSettings, now: datetime, *, dry_step: bool = True
) -> Iterator[Finding]:
    """Yield what is found at an institution: versions, keys, certificate, connection, policy, site
    file, machine, one dry step."""
    yield from _versions()
    yield (joined := found("invitation", lambda: _joined(folder)))
    if joined.level == "failure":
        yield from _machine(folder.path)
        return
    yield (own := found("user", lambda: _own(folder.path)))
    yield (authority := found("certificate", lambda: _institutions_certificate(folder, now)))
    yield (keyed := found("key", lambda: _key_pair(folder)))
    yield found("secret", lambda: _secret(folder.secret_file, JOIN))
    if authority.level != "failure":
        key = read_private_key(folder.key, KEY_REMEDY) if keyed.level != "failure" else None
        yield from _connection(folder, key, now)
    yield found("policy", lambda: _policy(folder))
    yield from _machine(folder.path)
    yield (site := found("site file", lambda: _site(folder, run)))
    if dry_step and "failure" not in (site.level, own.level):
        yield found("dry step", lambda: _dry_step(folder, run))


def coordinator_findings(folder: CoordinatorFolder, run: RunSettings, now: datetime) -> Iterator[Finding]:
    """Yield what is found at a coordinator."""
    yield from _versions()
    yield (set_up := found("settings", lambda: f"{folder.read().name}, at {folder.read().address}"))
    if set_up.level != "failure":
        yield from _served(folder, now)
    yield from _machine(folder.path)
    yield found("run's settings", lambda: _coordinators_run(run))


def _served(folder: CoordinatorFolder, now: datetime) -> Iterator[Finding]:
    yield (authority := found("authority", lambda: _authority(folder, now)))
    yield found("secret", lambda: _secret(folder.secret_file, "restore it from a backup, or make the folder anew"))
    yield found("authority's key", lambda: _key_out_of_reach(folder))
    if authority.level == "failure":
        return
    yield found("certificate", lambda: _servers_certificate(folder, now))
    yield found("SuperLink", lambda: _superlink(folder))
    if not folder.read().public.is_loopback:
        yield found("exposed", lambda: closed_control(folder.read().public, folder.authority_file))


def _versions() -> Iterator[Finding]:
    yield found("Flower", lambda: check_flower(locked(), version("flwr")))
    yield found("packages", lambda: check_packages(locked()))


def _joined(folder: InstitutionFolder) -> str:
    folder.read()
    invitation = folder.read_invitation()
    return f"{invitation.name}, at {invitation.address}"


def _own(path: Path) -> str:
    """Return that the folder is this user's: chips that another one cuts could not be used."""
    owner = path.stat().st_uid
    if owner != os.geteuid():
        name = _user(owner)
        raise DeploymentError(
            f"{path} belongs to user {name}, and this is {_user(os.geteuid())}: run this as the user that runs the "
            f"SuperNode (`sudo -u {name} ...`)"
        )
    return f"{_user(owner)}, whose the folder is"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _institutions_certificate(folder: InstitutionFolder, now: datetime) -> str:
    certificate = read_certificate(folder.authority_file, JOIN)
    if certificate != folder.read_invitation().authority:
        raise DeploymentError(
            f"{folder.authority_file} is not the certificate in {folder.invitation_file}: {JOIN}, which writes it anew"
        )
    return _lasting(expiry_warning(certificate, str(folder.authority_file), RENEWED_BY, now), folder.authority_file)


def _lasting(warning: str | None, path: Path) -> str:
    if warning:
        raise Doubt(warning)
    return f"{path}, valid until {read_certificate(path, '').not_valid_after_utc:%Y-%m-%d}"


def _key_pair(folder: InstitutionFolder) -> str:
    key = read_private_key(folder.key, KEY_REMEDY)
    if read_public_key(folder.public_key) != key.public_key():
        raise DeploymentError(
            f"{folder.public_key} does not belong to {folder.key}: {JOIN}, which writes it anew from the key"
        )
    return f"{folder.key}, for this user alone"


def _secret(path: Path, remedy: str) -> str:
    read_private(path, remedy)
    return f"{path}, for this user alone"


def _connection(folder: InstitutionFolder, key: ec.EllipticCurvePrivateKey | None, now: datetime) -> Iterator[Finding]:
    address = parse_address(folder.read_invitation().address, "address")
    yield from connection_findings(address, folder.authority_file, key, now)


def _policy(folder: InstitutionFolder) -> str:
    """Return that policy and signed app are both there: each alone can be gone round."""
    signed = bool(folder.read_invitation().signers) or folder.trusted_file.exists()
    if signed:
        read_trusted(folder.trusted_file)
    has_policy = (folder.path / POLICY).exists()
    if signed and has_policy:
        return f"{folder.path / POLICY}, and only signed apps run here"
    if signed:
        raise Doubt(f"{folder.path / POLICY} is missing, so the defaults hold. Write down what a run may ask of you")
    raise Doubt(
        f"nobody is named in {folder.trusted_file} who signs the app: whatever the coordinator sends runs here, and "
        f"it could go past {'your' if has_policy else 'any'} policy. Ask for an invitation that names signers"
    )


def _machine(path: Path) -> Iterator[Finding]:
    yield found("disk", lambda: _disk(path))
    yield found("memory", _memory)
    yield found("device", _device)


def _disk(path: Path) -> str:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < LITTLE_DISK:
        raise Doubt(f"{human_bytes(free)} are free at {path}: `fedsense plan` says how much a run takes")
    return f"{human_bytes(free)} are free at {path}"


def _memory() -> str:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = max(free, 0)  # not Linux: what the system counts as free
    text = f"{human_bytes(free)} of {human_bytes(whole)} are free"
    if free < LITTLE_MEMORY:
        raise Doubt(f"{text}: `fedsense plan` says how much a run takes")
    return text


def _device() -> str:
    import torch

    device = chosen_device()
    if device.type != "cuda":
        return f"no GPU that torch can use: training runs on {os.cpu_count()} cores"
    torch.zeros(1, device=device)
    free, whole = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()}, {human_bytes(free)} of {human_bytes(whole)} free"


def _site(folder: InstitutionFolder, run: RunSettings) -> str:
    site = load_site(Path(folder.read().site))
    config = resolve(run.settings, tables_of(run.flower_toml) if run.flower_toml else None)
    check_bands(site, config.data.bands, "Ask for a run on bands that you hold, or take the source out.")
    bands = config.data.bands if config.data.bands == "all" else ", ".join(config.data.bands)
    text = f"{site.name} ({site.path}): its sources have {bands}, chips of {config.data.chip_size}"
    if not run.are_given:
        raise Doubt(f"{text}. Those are the shipped settings: give the run's own, as KEY=VALUE or --run FOLDER")
    return text


def _dry_step(folder: InstitutionFolder, run: RunSettings) -> str:
    took = dry_round(run.settings, run.flower_toml, Path(folder.read().site), folder.path)
    gpu = f", {human_bytes(took.gpu)} of the GPU" if took.gpu else ""
    return (
        f"one step in {human_seconds(took.seconds)}, loss {took.loss:.3f}, an update of {human_bytes(took.bytes_up)}; "
        f"{human_bytes(took.resident)} of memory{gpu}. Nothing of it left"
    )


def _authority(folder: CoordinatorFolder, now: datetime) -> str:
    certificate = read_certificate(folder.authority_file, INIT)
    return _lasting(
        expiry_warning(certificate, str(folder.authority_file), RENEW_AUTHORITY, now), folder.authority_file
    )


def _servers_certificate(folder: CoordinatorFolder, now: datetime) -> str:
    names = [folder.read().public.host, LOOPBACK]
    authority = read_certificate(folder.authority_file, INIT)
    server = check_server(folder.server_certificate, folder.server_key, authority, names, RENEW)
    return _lasting(expiry_warning(server, str(folder.server_certificate), RENEW, now), folder.server_certificate)


def _key_out_of_reach(folder: CoordinatorFolder) -> str:
    near = [path for path in folder.path.rglob("*.key") if path.name.startswith("ca")]
    if near:
        raise DeploymentError(
            f"{near[0]} lies on this machine: whoever takes it can pose as the coordinator for as long as ca.crt is "
            "valid. Move it to a medium that is not connected"
        )
    return "is not in this folder, as it should be"


def _superlink(folder: CoordinatorFolder) -> str:
    with connect(folder) as control:
        members = control.members()
    if not members:
        raise Doubt("it answers, and nobody was admitted yet: `fedsense coordinator admit NAME KEY.pub`")
    online = [member.name for member in members if member.status == "online"]
    return f"it answers; {len(online)} of {len(members)} institutions are connected"


def _coordinators_run(run: RunSettings) -> str:
    from fedsense_core.data.sites.locations import labelled_folder, public_file

    config = resolve(run.settings, tables_of(run.flower_toml) if run.flower_toml else None)
    public = load_site(public_file(config))
    check_bands(public, config.data.bands, "Name other public imagery (federation.public), or other bands.")
    labelled = labelled_folder(config)
    if labelled is not None and not labelled.is_dir():
        raise FedSenseError(f"federation.labelled = {str(labelled)!r} is no folder: name one, or leave it empty")
    text = f"{config.preset} for {config.run.rounds} rounds, public imagery {public.name}"
    if config.federation.quorum < 2:
        raise Doubt(f"{text}. federation.quorum = {config.federation.quorum}: one institution alone makes a round")
    return text

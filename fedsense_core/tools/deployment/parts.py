"""Flower's programs of each role, with the safe choices made: loopback, process isolation, a secret
in a file, keys of SuperNodes, certificates."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedsense_core.tools.app_bundle.trusted_signers import read_trusted
from fedsense_core.tools.deployment.addresses import parse_address
from fedsense_core.tools.deployment.coordinator_folder import LOOPBACK, CoordinatorFolder
from fedsense_core.tools.deployment.documents import DeploymentError, toml_of
from fedsense_core.tools.deployment.institution_folder import InstitutionFolder
from fedsense_core.tools.deployment.private_files import private_folder, write_private
from fedsense_core.tools.deployment.proxy import FleetProxy, proxy_command
from fedsense_core.tools.runner.processes import program, search_path

REFUSED = (
    "the coordinator does not know this institution's key, or still takes an earlier SuperNode with it for connected, "
    "which ends within a minute. Was {key} given to `fedsense coordinator admit`?"
)


@dataclass(frozen=True)
class Part:
    """One program that a role keeps running."""

    name: str
    """What ``--only`` calls it."""
    command: tuple[str, ...]
    home: Path
    """FLWR_HOME and working directory: nothing here can be imported in place of the app."""
    port: int | None = None
    """Port of 127.0.0.1 on which it listens; the next part starts once it does."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What to say where its last words contain a text."""
    check: Callable[[], object] | None = None
    """What raises, before each start, where the program must not start."""
    leaves_machine: bool = False
    """Whether it connects to another machine, perhaps through a proxy that the environment
    names."""

    def environment(self) -> dict[str, str]:
        """Return the environment of the program."""
        inherited = dict(os.environ) | ({} if self.leaves_machine else past_proxies(os.environ))
        return inherited | {
            "PATH": search_path(),
            "PYTHONUNBUFFERED": "1",
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            # else Flower downloads torch into a new environment for every run
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        }


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables by which connections to this machine go past an outgoing proxy."""
    named = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, [named, LOOPBACK, "localhost"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


PartOf = Callable[[CoordinatorFolder], Part]


def superlink(folder: CoordinatorFolder) -> Part:
    """Return the SuperLink: it listens on loopback, and knows SuperNodes by their keys."""
    settings = folder.read()
    command = (
        *(program("flower-superlink"), "--host", LOOPBACK, "--port", str(settings.port)),
        *("--ssl-certfile", str(folder.server_certificate), "--ssl-keyfile", str(folder.server_key)),
        *("--ssl-ca-certfile", str(folder.authority_file), "--enable-supernode-auth"),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.secret_file)),
        *("--database", str(folder.database), "--disable-runtime-dependency-installation"),
    )
    return Part("superlink", command, folder.flower_home("superlink"), settings.port)


def coordinators_superexec(folder: CoordinatorFolder) -> Part:
    """Return the SuperExec that starts the ServerApp of each run."""
    address = folder.read().superlink
    return Part(
        "superexec",
        _superexec(str(address), folder.authority_file, folder.secret_file),
        folder.flower_home("superexec"),
    )


def proxy(folder: CoordinatorFolder) -> Part:
    """Return the proxy that passes only ``/v1/fleet/``.

    Raises DeploymentError where the settings have none, ConfigError where nginx is missing.
    """
    settings = folder.read()
    if settings.proxy is None:
        raise DeploymentError(
            f"{folder.settings_file} has no table [proxy]: institutions reach the SuperLink itself at "
            f'{settings.address}. For a proxy add the table, with listen = "ADDRESS:PORT"'
        )
    listen = parse_address(settings.proxy.listen, "listen")
    home = folder.flower_home("proxy")
    command = proxy_command(FleetProxy(listen.host, listen.port, settings.port, folder.certificates, home))
    answers_here = listen.is_loopback or listen.host in ("0.0.0.0", "::")
    return Part("proxy", tuple(command), home, listen.port if answers_here else None)


COORDINATOR_PARTS: dict[str, PartOf] = {"superlink": superlink, "superexec": coordinators_superexec, "proxy": proxy}
"""In the order in which they start."""


def coordinator_parts(folder: CoordinatorFolder, only: str | None) -> list[Part]:
    """Return what ``coordinator serve`` keeps running, in the order in which it starts.

    Raises DeploymentError.
    """
    names = [name for name in COORDINATOR_PARTS if name != "proxy" or folder.read().proxy]
    return [COORDINATOR_PARTS[name](folder) for name in _chosen(names, list(COORDINATOR_PARTS), only)]


def supernode(folder: InstitutionFolder) -> Part:
    """Return the SuperNode: it connects to the coordinator, and runs only what a trusted signer
    signed where signers are known."""
    settings, invitation = folder.read(), folder.read_invitation()
    command = [
        *(program("flower-supernode"), "--superlink", invitation.address),
        *("--root-certificates", str(folder.authority_file), "--auth-supernode-private-key", str(folder.key)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.secret_file)),
        *("--host", LOOPBACK, "--port", str(settings.port)),
        *("--ssl-certfile", str(folder.loopback / "server.pem"), "--ssl-keyfile", str(folder.loopback / "server.key")),
        *("--ssl-ca-certfile", str(folder.loopback / "ca.crt"), "--node-config", str(folder.node_file)),
    ]
    check = None
    if folder.trusted_file.exists():
        command += ["--trusted-entities", str(folder.trusted_file)]
        check = partial(read_trusted, folder.trusted_file)  # Flower would take an empty one as leave for every app
    refused = REFUSED.format(key=folder.public_key)
    home = folder.flower_home("supernode")
    return Part("supernode", tuple(command), home, settings.port, {"code: 2004": refused}, check, leaves_machine=True)


def institutions_superexec(folder: InstitutionFolder) -> Part:
    """Return the SuperExec that starts the ClientApp for each message."""
    address = f"{LOOPBACK}:{folder.read().port}"
    command = _superexec(address, folder.loopback / "ca.crt", folder.secret_file)
    return Part("superexec", command, folder.flower_home("superexec"))


def watch(folder: InstitutionFolder) -> Part:
    """Return what ends the work of runs that have ended: it asks the coordinator with the
    institution's key."""
    paths = map(str, (folder.authority_file, folder.key, folder.path))
    command = (
        sys.executable,
        "-m",
        "fedsense_core.tools.deployment.run_watch",
        folder.read_invitation().address,
        *paths,
    )
    return Part("watch", command, folder.flower_home("watch"), leaves_machine=True)


INSTITUTION_PARTS: dict[str, Callable[[InstitutionFolder], Part]] = {
    "supernode": supernode,
    "superexec": institutions_superexec,
    "watch": watch,
}
"""In the order in which they start."""
TOGETHER = {"supernode": ("supernode", "watch")}
"""What ``--only`` starts besides: both need the key, which the app should not be able to read."""


def institution_parts(folder: InstitutionFolder, only: str | None) -> list[Part]:
    """Return what ``institution serve`` keeps running, in the order in which it starts.

    Raises DeploymentError.
    """
    names = list(INSTITUTION_PARTS)
    chosen = [part for name in _chosen(names, names, only) for part in TOGETHER.get(name if only else "", (name,))]
    return [INSTITUTION_PARTS[name](folder) for name in chosen]


def write_node_file(folder: InstitutionFolder) -> None:
    """Write what the SuperNode tells the app: where site file and state are."""
    values = {"site": folder.read().site, "state-dir": str(folder.path)}
    write_private(
        folder.node_file, toml_of(values, "Written by `fedsense institution serve` for Flower's --node-config.")
    )


def prepare(part: Part) -> None:
    """Make the folder that a part runs in. Raises what its check raises."""
    if part.check is not None:
        part.check()
    private_folder(part.home)


def supervised(part: Part) -> list[str]:
    """Return the command under a supervisor, which ends with whoever started it."""
    return [sys.executable, "-m", "fedsense_core.tools.runner.supervisor", *part.command]


def _superexec(address: str, authority: Path, secret: Path) -> tuple[str, ...]:
    return (
        *(program("flower-superexec"), "--runtime-api-address", address),
        *("--root-certificates", str(authority), "--superexec-auth-secret-file", str(secret)),
    )


def _chosen(names: list[str], known: list[str], only: str | None) -> list[str]:
    if only is None:
        return names
    if only not in known:
        raise DeploymentError(f"--only {only!r} is none of {', '.join(known)}")
    return [only]

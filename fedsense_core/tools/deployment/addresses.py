"""Where a coordinator is reached: a host and a port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from fedsense_core.tools.deployment.documents import DeploymentError

DEFAULT_PORT = 8443
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
"""One part of a host name (RFC 1123; the underscore is in use)."""


@dataclass(frozen=True)
class Address:
    """A host name or an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(text: str, where: str) -> Address:
    """Read ``HOST[:PORT]``, an IPv6 address in brackets. Raises DeploymentError beginning with
    ``where``."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", text)
    host, port = (match[1] or match[2], int(match[3] or DEFAULT_PORT)) if match else ("", 0)
    if not (is_host(host) and 0 < port < 65536):
        raise DeploymentError(
            f"{where} = {text!r} is no address: give the name or IP address under which institutions reach the "
            "coordinator, and a port from 1 to 65535, such as fl.example.org:8443 or [2001:db8::1]:8443"
        )
    return Address(host, port)


def is_host(text: str) -> bool:
    """Return whether a text can be a host name or is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # An address of numbers alone that is none is a slip, not a name.
        labels = text.removesuffix(".").split(".")
        return len(text) <= 253 and all(map(LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return True

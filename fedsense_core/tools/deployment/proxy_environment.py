"""Flower's processes behind an outgoing HTTPS proxy.

Flower's HTTP client is httpx, which reads HTTPS_PROXY, ALL_PROXY and NO_PROXY and, unlike a
browser, sends requests to this machine through the proxy as well unless NO_PROXY names it:
https://www.python-httpx.org/environment_variables/.
"""

from __future__ import annotations

from collections.abc import Mapping

THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def direct_on_this_machine(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which programs talk to this machine without a proxy, and to all
    others as before."""
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""  # the order in which Python looks
    names = [name for name in (part.strip() for part in before.split(",")) if name]
    hosts = ",".join([*names, *(host for host in THIS_MACHINE if host not in names)])
    return {**environment, "no_proxy": hosts, "NO_PROXY": hosts}

"""The text of nginx.conf, and the environment behind an outgoing proxy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from fedsense_core.errors import ConfigError
from fedsense_core.tools.deployment.parts import past_proxies
from fedsense_core.tools.deployment.proxy import FleetProxy, nginx_configuration, proxy_command

PROXY = FleetProxy("0.0.0.0", 8443, 8444, Path("/srv/a b/certificates"), Path("/srv/a b/proxy"))


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("0.0.0.0", "listen 0.0.0.0:8443 ssl;"),
        ("::", "listen [::]:8443 ssl;"),
        ("[2001:db8::1]", "listen [2001:db8::1]:8443 ssl;"),
        ("fl.example.org", "listen fl.example.org:8443 ssl;"),
    ],
)
def test_any_address_is_listened_on(host: str, line: str) -> None:
    assert line in nginx_configuration(replace(PROXY, host=host))


def test_files_lie_below_the_folder_and_the_superlink_on_loopback() -> None:
    text = nginx_configuration(PROXY)
    assert "proxy_pass https://127.0.0.1:8444;" in text
    assert 'pid "/srv/a b/proxy/nginx.pid";' in text
    assert 'ssl_certificate_key "/srv/a b/certificates/server.key";' in text
    assert text.count("/srv/") == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "0.0.0.0; include /etc/passwd"),
        ("host", ""),
        ("port", 0),
        ("port", 65536),
        ("port", 8444),
        ("folder", Path('/srv/"; user root; "')),
        ("folder", Path("/srv/$host")),
        ("folder", Path("/srv/a\nb")),
        ("certificates", Path("certificates")),
        ("certificates", Path("/srv/\\")),
    ],
)
def test_value_that_would_mean_something_else_to_nginx_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        nginx_configuration(replace(PROXY, **{field: value}))
    assert field in str(caught.value)
    assert repr(str(value)) in str(caught.value) or str(value) in str(caught.value)


def test_missing_nginx_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"no program nginx.*package `nginx`"):
        proxy_command(replace(PROXY, folder=tmp_path))


URLS = ["https://127.0.0.1:9094/x", "http://localhost:9094"]
URLS += ["https://intranet.example.test", "https://fl.example.test:8443"]


@pytest.mark.parametrize("before", ["", "NO_PROXY", "no_proxy"])
def test_this_machine_is_reached_without_the_proxy_and_all_others_through_it(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of httpx, Flower's client, itself."""
    environment = {"HTTPS_PROXY": "http://proxy.example.test:3128", "ALL_PROXY": "http://proxy.example.test:3128"}
    environment |= {before: "intranet.example.test"} if before else {}
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | past_proxies(environment)).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        direct = [url for url in URLS if client._transport_for_url(httpx.URL(url)) is client._transport]
    assert direct == (URLS[:3] if before else URLS[:2])

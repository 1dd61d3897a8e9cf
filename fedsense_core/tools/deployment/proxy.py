"""The one door to a coordinator from outside: an nginx that passes the Fleet API and nothing else.

Whoever reaches a SuperLink's port can start runs, so it listens on the loopback interface. What
SuperNodes need of it begins with ``/v1/fleet/``; nginx takes that, and only that, to it.
https://nginx.org/en/docs/ says what each directive does.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fedsense_core.atomic_io import write_whole
from fedsense_core.errors import ConfigError

QUOTABLE = re.compile(r"[^\"'\\${};\x00-\x1f\x7f]+")
"""What a path may consist of: nginx reads variables and escapes within quotes too."""
HOST = re.compile(r"[0-9A-Za-z.:-]+")

CONFIGURATION = """\
# Written by FedSense from coordinator.toml at each start: change that file, not this one.
daemon off;
pid "{folder}/nginx.pid";
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 768; }}

http {{
    access_log off;                         # refusals and faults are in the error log
    server_tokens off;
    default_type application/octet-stream;

    # Whole requests are kept in memory, so that a slow sender costs nginx and not the SuperLink, and
    # no disk. Flower's largest hold an array's chunk of 5 MiB.
    client_max_body_size 16m;
    client_body_buffer_size 16m;
    proxy_max_temp_file_size 0;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    limit_conn_zone $binary_remote_addr zone=address:10m;
    limit_conn_zone $server_port zone=all:1m;

    server {{
        listen {listen} ssl;
        ssl_certificate "{certificates}/server.pem";
        ssl_certificate_key "{certificates}/server.key";
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:sessions:1m;

        limit_conn address 64;              # institutions may share an address; each takes about four
        limit_conn all 256;                 # at most 256 times 16 MiB of requests in memory
        client_header_timeout 15s;
        client_body_timeout 60s;            # between two reads, not for the whole
        send_timeout 60s;
        keepalive_timeout 75s;

        location / {{ deny all; }}          # 403, and a line in the log

        location = /v1/fleet {{ deny all; }}  # or nginx would answer with a redirection

        location /v1/fleet/ {{
            # As it was sent, not as nginx understands it: no detours, encodings, arguments.
            if ($request_uri !~ "^/v1/fleet/[a-z-]+$") {{ rewrite ^ /refused last; }}
            if ($request_method != POST) {{ rewrite ^ /refused last; }}
            if ($server_protocol != HTTP/1.1) {{ rewrite ^ /refused last; }}
            if ($http_transfer_encoding) {{ rewrite ^ /refused last; }}   # SuperNodes say how long a request is

            proxy_pass https://127.0.0.1:{superlink_port};
            proxy_http_version 1.1;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate "{certificates}/ca.crt";
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            proxy_set_header Host localhost;
            proxy_set_header X-Forwarded-For $remote_addr;     # not what the sender says
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header Forwarded "";
            proxy_next_upstream off;        # a repeated upload is refused, and the update would be lost
            proxy_connect_timeout 60s;
            proxy_send_timeout 120s;
            proxy_read_timeout 120s;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class FleetProxy:
    """Where the proxy listens, what it shows and trusts, and where it leads."""

    host: str
    """Address to listen on: 0.0.0.0 or [::] for all, else one of this machine's."""
    port: int
    """Port to listen on, which institutions connect to."""
    superlink_port: int
    """Port of 127.0.0.1 on which the SuperLink listens."""
    certificates: Path
    """Folder of ``server.pem``, ``server.key`` and ``ca.crt``. The SuperLink's certificate must
    name localhost."""
    folder: Path
    """Where nginx keeps its configuration and process id; nobody else's."""


def nginx_configuration(proxy: FleetProxy) -> str:
    """Return the text of an ``nginx.conf``.

    Raises ConfigError for an address, a port or a path that would not mean itself in it.
    """
    for field in ("certificates", "folder"):
        path = getattr(proxy, field)
        if not QUOTABLE.fullmatch(str(path)) or not path.is_absolute():
            raise ConfigError(
                f"the proxy's folder {field}: {str(path)!r} cannot stand in nginx.conf. Give an absolute path without "
                "quotes, $, ;, \\, braces and control characters"
            )
    for field in ("port", "superlink_port"):
        if not 1 <= getattr(proxy, field) <= 65535:
            raise ConfigError(f"the proxy's {field} is {getattr(proxy, field)}: a port is 1 to 65535")
    if proxy.port == proxy.superlink_port:
        raise ConfigError(f"the proxy and the SuperLink cannot both have port {proxy.port}: choose another for one")
    return CONFIGURATION.format(
        folder=proxy.folder,
        certificates=proxy.certificates,
        listen=_listen(proxy.host, proxy.port),
        superlink_port=proxy.superlink_port,
    )


def proxy_command(proxy: FleetProxy) -> list[str]:
    """Write the configuration and return the command that runs nginx with it, in the foreground.

    Raises ConfigError if nginx is missing, or as ``nginx_configuration``.
    """
    program = _nginx()
    text = nginx_configuration(proxy)
    proxy.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = proxy.folder / "nginx.conf"
    write_whole(path, text.encode())
    return [program, "-p", str(proxy.folder), "-c", str(path), "-e", "stderr"]


def _nginx() -> str:
    """Return where nginx is. Distributions put it where only root looks."""
    for path in (None, "/usr/sbin:/usr/local/sbin:/sbin"):
        if found := shutil.which("nginx", path=path):
            return found
    raise ConfigError(
        "no program nginx: the proxy that institutions connect to needs it. Install your system's package `nginx` "
        "(`apt-get install nginx-light` on Debian and Ubuntu, `dnf install nginx` on Fedora and RHEL)"
    )


def _listen(host: str, port: int) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    if not HOST.fullmatch(bare):
        raise ConfigError(f"the proxy's host {host!r} is no address: give an IP address of this machine or 0.0.0.0")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"

"""The way from an institution to its coordinator, one step after the other: name, port,
certificate, the part of Flower's interface that institutions need, the key, and the parts that
nobody outside may reach."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsense_core.tools.deployment.addresses import Address
from fedsense_core.tools.deployment.certificate_checks import expiry_warning
from fedsense_core.tools.deployment.documents import DeploymentError
from fedsense_core.tools.health.findings import Doubt, Finding, found

PATIENCE_S = 10.0
RENEWING = "Only the coordinator can renew it (`fedsense coordinator renew`)."
NO_INTERVAL = 0.0
"""A pause between heartbeats that Flower refuses, after it has looked the key up: so a key is asked
about without a SuperNode being taken for connected."""
KEY_IS_KNOWN, KEY_IS_UNKNOWN = 2003, 2004
"""Flower's codes for that pause, and for a key that was not admitted."""
CLOSED = (401, 403, 404, 405)
CONTROL = "/v1/control/list-runs"


def connection_findings(
    address: Address, authority_file: Path, key: ec.EllipticCurvePrivateKey | None, now: datetime
) -> Iterator[Finding]:
    """Yield what is found on the way to a coordinator; what comes after a step that fails is left
    out."""
    proxy = _proxy(address)
    if proxy:
        yield Finding("ok", "proxy", f"the environment sends connections to {address.host} through {proxy}")
    steps = {
        "port": lambda: _port(address),
        "certificate shown": lambda: _certificate(address, authority_file, now),
    }
    for subject, look in {} if proxy else steps.items():
        yield (finding := found(subject, look))
        if finding.level == "failure":
            return
    if key is not None:
        yield (finding := found("key admitted", lambda: _key(address, authority_file, key)))
        if finding.level == "failure":
            return
    yield found("exposed", lambda: closed_control(address, authority_file))


def _proxy(address: Address) -> str:
    """Return the outgoing proxy that the environment names for an address; empty for none."""
    return "" if proxy_bypass(address.host) else getproxies().get("https", "")


def _port(address: Address) -> str:
    try:
        with socket.create_connection((address.host, address.port), timeout=PATIENCE_S):
            return f"{address} answers"
    except socket.gaierror as error:
        raise DeploymentError(
            f"the name {address.host} is not known here ({error.strerror}): compare it with the coordinator's, and "
            "look at this machine's name service"
        ) from error
    except ConnectionRefusedError as error:
        raise DeploymentError(
            f"{address} refuses: nobody listens there. Ask the coordinator whether it serves, and on which port"
        ) from error
    except TimeoutError as error:
        raise DeploymentError(
            f"{address} did not answer within {PATIENCE_S:g} s: a firewall drops it, here or there. It needs outgoing "
            f"TCP to port {address.port}, or a proxy in HTTPS_PROXY"
        ) from error
    except OSError as error:
        raise DeploymentError(f"{address} cannot be reached ({error.strerror or error})") from error


def _certificate(address: Address, authority_file: Path, now: datetime) -> str:
    context = _trusting(authority_file)
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as connection,
        ):
            shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(f"{address}: {_in_words(error, authority_file)}") from error
    except ssl.SSLError as error:
        raise DeploymentError(
            f"{address} does not speak TLS ({error.reason or error}): another service may have the port"
        ) from error
    except OSError as error:
        raise DeploymentError(
            f"{address} broke off ({error.strerror or error}): a firewall or proxy may do so"
        ) from error
    if warning := expiry_warning(shown, str(address), RENEWING, now):
        raise Doubt(warning)
    return f"{address} shows one of this federation, valid until {shown.not_valid_after_utc:%Y-%m-%d}"


def _in_words(error: ssl.SSLCertVerificationError, authority_file: Path) -> str:
    said = error.verify_message
    if "expired" in said:
        return f"its certificate has expired. {RENEWING}"
    if "not yet valid" in said:
        return "its certificate is not valid yet: compare this machine's clock with the coordinator's"
    if "mismatch" in said or "not valid for" in said:
        return (
            "its certificate is for other names than this address: ask the coordinator to renew it with this one "
            "(`fedsense coordinator renew`), or for an invitation with the right address"
        )
    return (
        f"its certificate is of another authority than {authority_file} ({said}): it may be another server. Compare "
        "the fingerprint with the coordinator over another channel before you take a new invitation"
    )


def _key(address: Address, authority_file: Path, key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key()
    client = FleetHttpClient(
        f"https://{address}",
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="fedsense doctor"),
            NodeAuthHttpInterceptor(key, public),
        ],
        verify=_trusting(authority_file),
        timeout=PATIENCE_S,
    )
    try:
        client.ActivateNode(ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=NO_INTERVAL))
    except httpx.HTTPStatusError as error:
        return _judged(error, address)
    except (httpx.RequestError, ValueError) as error:
        raise DeploymentError(f"{address}/v1/fleet/ does not answer ({error or type(error).__name__})") from error
    finally:
        client.close()
    raise Doubt("the coordinator took a heartbeat that Flower refuses: it runs another Flower than this one")


def _judged(error: httpx.HTTPStatusError, address: Address) -> str:
    status, said = error.response.status_code, FlowerError.from_json(error.response.text)
    if said is not None and said.code == KEY_IS_KNOWN:
        return "the coordinator knows this institution's key"
    if said is not None and said.code == KEY_IS_UNKNOWN:
        raise DeploymentError(
            "the coordinator does not know this institution's key: send it key.pub, and have it admitted under the "
            "name in your site file (`fedsense coordinator admit NAME key.pub`). A SuperNode that is refused with "
            "the same code 2004 although its key is admitted was connected a moment ago: it gets in within a minute"
        ) from error
    if status == 401:
        raise DeploymentError(
            "the coordinator takes no signature of this machine: its clock may be wrong by minutes, or the two "
            "Flowers differ"
        ) from error
    if status in CLOSED:
        raise DeploymentError(
            f"{address}/v1/fleet/ is closed (HTTP {status}): the proxy before the coordinator passes something else, "
            "or the address is another service's"
        ) from error
    raise DeploymentError(f"{address}/v1/fleet/ answers HTTP {status}: {said.message if said else 'nothing of Flower'}")


def closed_control(address: Address, authority_file: Path) -> str:
    """Return that the interface which starts runs is closed at an address. Raises DeploymentError
    where it is open: whoever reaches it runs code at every institution."""
    try:
        answer = httpx.post(f"https://{address}{CONTROL}", verify=_trusting(authority_file), timeout=PATIENCE_S)
    except httpx.HTTPError as error:
        return f"/v1/control/ gives no answer ({type(error).__name__})"
    if answer.status_code in CLOSED:
        return f"/v1/control/ is closed (HTTP {answer.status_code})"
    where = f"{address}{CONTROL} answers from here (HTTP {answer.status_code})"
    if address.is_loopback:
        raise Doubt(f"{where}: this is the SuperLink itself, without a proxy. Good for a trial on one machine alone")
    raise DeploymentError(
        f"{where}: whoever reaches it can start runs, which is to run code. The coordinator must put a proxy before "
        "the SuperLink that passes only /v1/fleet/"
    )


def _trusting(authority_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authority_file))
    except (OSError, ssl.SSLError) as error:
        raise DeploymentError(f"{authority_file} cannot be read as a certificate ({error})") from error

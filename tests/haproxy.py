"""The proxy as shipped, in front of a running API."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.local_servers import free_port

CONFIGURATION: Final = Path(__file__).resolve().parents[1] / "deploy" / "haproxy" / "haproxy.cfg"
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Proxy:
    plain: str
    secure: str
    port: int
    authority: Path  # the certificate that a client has to trust


def binary() -> str:
    """Its path; skips the test where it is not installed, and fails it in CI."""
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("in CI haproxy must be installed")
        pytest.skip("haproxy is not installed")
    return found


@contextmanager
def running_proxy(folder: Path, api: str, **settings: str) -> Iterator[Proxy]:
    """`settings` are environment names without PROXY_."""
    port, secure_port = free_port(), free_port()
    certificate = write_certificate(folder)
    environment = {
        "PROXY_ADDRESS": "127.0.0.1",
        "PROXY_PORT": str(port),
        "PROXY_TLS_PORT": str(secure_port),
        "PROXY_CERTIFICATE": str(certificate),
        "PROXY_API": api.removeprefix("http://"),
        **{f"PROXY_{name}": value for name, value in settings.items()},
    }
    with (folder / "haproxy.log").open("ab") as log:
        process = subprocess.Popen(
            [binary(), "-db", "-f", str(CONFIGURATION)], env=os.environ | environment, stdout=log, stderr=log
        )
    plain = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_serves(plain, process, folder)
        yield Proxy(plain, f"https://127.0.0.1:{secure_port}", port, certificate)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_it_serves(url: str, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError((folder / "haproxy.log").read_text(errors="replace")[-4000:])
        time.sleep(0.05)  # a foreign process that only a probe can see


def write_certificate(folder: Path) -> Path:
    """A key and its certificate for this machine in one file, as the proxy wants them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "penstock.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path = folder / "proxy.pem"
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path

"""The certificate of the local Connect: made for one run, trusted by nobody who is not told to."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi

from saga_engine.connect.local_errors import MissingPackage

__all__ = ["HOST", "make_certificate"]

HOST = "127.0.0.1"


def make_certificate(ca_file: Path) -> ssl.SSLContext:
    """Make an authority and a server's certificate; both keys stay in memory.

    Args:
        ca_file: where to write whom to trust, as PEM: this run's authority, and those that were trusted before, so
            that whoever trusts this file can still call a vendor.

    Returns:
        The server's side of TLS.

    Raises:
        MissingPackage: trustme is not installed.
    """
    try:
        import trustme
    except ImportError as e:
        raise MissingPackage("the local Connect needs trustme: pip install 'saga-engine[local]'") from e
    authority = trustme.CA(organization_name="saga-engine local Connect")
    ca_file.write_bytes(authority.cert_pem.bytes() + b"\n" + _trusted_before().read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    return context


def _trusted_before() -> Path:
    """Give the file of authorities that this process trusts: a company's own, if its environment names one."""
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    return next((Path(path) for path in named if path and Path(path).is_file()), Path(certifi.where()))

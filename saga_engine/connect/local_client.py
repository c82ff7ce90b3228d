"""A client of the local Connect's API, which trusts its certificate without changing this process's environment."""

from __future__ import annotations

from pathlib import Path

import requests
from connect.client import ConnectClient

__all__ = ["LocalClient"]


class LocalClient(ConnectClient):  # type: ignore[misc]  # connect ships no types
    """A `ConnectClient` that trusts a file of authorities, uses no proxy, and never repeats a call.

    Args:
        api_key: "ApiKey ...".
        endpoint: the address of the API, up to `/public/v1`.
        ca_file: whom to trust, PEM.
    """

    def __init__(self, api_key: str, endpoint: str, ca_file: Path) -> None:
        super().__init__(api_key, endpoint, max_retries=0)
        self._ca_file = ca_file

    @property
    def session(self) -> requests.Session:
        """The HTTP session of this thread."""
        session: requests.Session = super().session
        session.verify = str(self._ca_file)
        session.trust_env = False
        return session

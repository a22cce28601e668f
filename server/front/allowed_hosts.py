"""Checks the Host header, against DNS rebinding.

A page of evil.example can make that name resolve to 127.0.0.1.  The browser then takes this server for a part
of that page's site and lets the page read our answers, but the Host header still says evil.example.  An IP
address cannot be rebound, and a server that needs API keys is safe: the page has none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


class AllowedHosts:
    """Allows `localhost`, names under it, IP addresses, and `names`; the name * allows any."""

    def __init__(self, names: Collection[str]):
        self._any = "*" in names
        self._names = {name.lower().rstrip(".") for name in names}

    def allows(self, header: str) -> bool:
        """header  `NAME`, `NAME:PORT` or `[ADDRESS]:PORT`; empty if absent, which no browser does: allowed"""
        if self._any or not header:
            return True
        name = _without_port(header).lower().rstrip(".")
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]

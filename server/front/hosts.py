"""Which names of this server a request may come under.

A page of evil.example can have that name point to 127.0.0.1 (DNS rebinding).  To the browser, the server is
then a part of that page's site, and its answers may be read.  The Host header gives it away.  An address
cannot be rebound, and a server that asks for keys has nothing to fear: the page does not know any.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


class Hosts:
    """Names that are this server's: `localhost`, names under it, addresses, and `names`; * allows any."""

    def __init__(self, names: Collection[str]):
        self._any = "*" in names
        self._names = {name.lower().rstrip(".") for name in names}

    def allows(self, header: str) -> bool:
        """`header` is `NAME`, `NAME:PORT` or `[ADDRESS]:PORT`; empty if there was none: no browser's."""
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

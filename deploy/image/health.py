"""The container's HEALTHCHECK: exits 0 if /health on GPTOSS_PORT answers 200.  Standard library only."""

import http.client
import os
import sys

PATIENCE_SECONDS = 4


def main() -> None:
    host = os.environ.get("GPTOSS_HOST", "127.0.0.1")
    port = int(os.environ.get("GPTOSS_PORT", "8000"))
    ours = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        connection = http.client.HTTPConnection(ours, port, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/health")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"{ours}, port {port}: {error}")
    if answer.status != http.client.OK:
        sys.exit(f"/health: {answer.status} {answer.reason}")


if __name__ == "__main__":
    main()

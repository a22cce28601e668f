"""schemathesis: requests made from our own /openapi.json, right ones and wrong ones, and no server error.

Its server is small, so that an answer of any length is a short one.
"""

import subprocess
import sys

from tests.clients.conftest import serving
from tests.clients.packages import require

require("schemathesis")


def test_no_request_of_the_schema_is_a_server_error(tmp_path):
    with serving("--max-context", "256", "--max-queued", "8") as server:
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
        command += [server.url + "/openapi.json", "--checks", "not_a_server_error", "--max-examples", "15"]
        command += ["--phases", "coverage,fuzzing", "--seed", "1", "--request-timeout", "60", "--no-color"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout

"""`make test-scale`: a real Ray on this machine."""

import os

if os.environ.get("TEST_SCALE") != "all":
    collect_ignore_glob = ["test_*.py"]

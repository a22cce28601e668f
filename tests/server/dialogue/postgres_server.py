"""A PostgreSQL server for tests, in a temporary folder; the programs are those of Debian's package
postgresql.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from glob import glob
from pathlib import Path

import psycopg
import pytest


def program(name: str) -> str | None:
    """The path of a program; Debian's are not in PATH."""
    return shutil.which(name) or next(
        iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None
    )


def missing() -> str | None:
    """Why no server can be started on this machine; None if one can."""
    if program("initdb") is None or program("postgres") is None:
        return "there is no PostgreSQL here: apt-get install postgresql"
    if os.getuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return None


def _user() -> str | None:
    known = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


class Postgres:
    """A server that listens only on a socket in its folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gptoss-pg-"))
        self._user = _user() if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        made = self._run("initdb", "-D", self.folder / "data", "-U", "gptoss", "-A", "trust", "-E", "UTF8",
                         "--no-sync", "--locale=C")  # fmt: skip
        assert made.wait(60) == 0, made.stdout.read().decode()

    @property
    def url(self) -> str:
        return f"postgresql://gptoss@/postgres?host={self.folder}"

    def _run(self, name, *words):
        return subprocess.Popen(
            [program(name), *map(str, words)],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start(self) -> None:
        log = self.folder / "log"
        words = ["-D", self.folder / "data", "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = self._run(
            "postgres", *words, "-c", "logging_collector=on", "-c", f"log_directory={log}"
        )
        while True:
            try:
                with self.connect():
                    return
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._process.stdout.read().decode()

    def connect(self):
        return psycopg.connect(self.url, autocommit=True, connect_timeout=60)

    def ask(self, query, *values):
        with self.connect() as db:
            return db.execute(query, values).fetchall()

    def clear(self) -> None:
        with self.connect() as db:
            db.execute("drop table if exists gptoss_items, gptoss_groups, gptoss_store")

    def stop(self) -> None:
        """Stop the server at once, as in a power failure."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process.stdout.close()
            self._process = None

    def processes(self):
        """Ids of the server's process and of those for its connections."""
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def freeze(self) -> None:
        """Suspend all processes: connections stay open, and get no answer."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)


def running():
    """For a fixture: a running server, which is closed at the end.  Without PostgreSQL, tests are skipped."""
    if (why := missing()) is not None:
        pytest.skip(why)
    database = Postgres()
    try:
        database.start()
        yield database
    finally:
        database.close()

"""The file of a batch's results: one line for each line of the input, in the order in which they finished.

    {"id": "batch_req_…", "custom_id": "a", "response": {"status_code": 200, "request_id": …, "body": …},
     "error": null}

Each line is written once.  After a run was killed, the next run reads which lines exist and continues.  Only
the last line can be incomplete; it is removed.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from gptoss.batch.client import Reply
from gptoss.batch.lines import BadLine, Task
from gptoss.start import StartError

HEAD = b'{"id": "batch_req_'
"""The beginning of each line."""


class Results:
    """A context manager.  Only one process at a time can have the file.

    failed  number of lines with an error
    """

    def __init__(self, path: Path):
        """Raises StartError if the file cannot be used, or has other contents."""
        self._ids: set[str] = set()
        self._bad_lines: set[int] = set()
        self.failed = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartError(f"{path}: {error.strerror}") from None
        try:
            self._take(path)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file)
        os.close(self._file)

    @property
    def ids(self) -> int:
        """Number of requests with a result."""
        return len(self._ids)

    def has(self, line: Task | BadLine) -> bool:
        if isinstance(line, BadLine):
            return line.number in self._bad_lines
        return line.custom_id in self._ids

    def answered(self, task: Task, reply: Reply) -> None:
        """reply: may also be an error of the API"""
        response = {"status_code": reply.status, "request_id": reply.request_id, "body": reply.body}
        self._write(task.custom_id, response, None)

    def gave_up(self, task: Task, code: str, message: str) -> None:
        """Record that a request failed finally."""
        self._write(task.custom_id, None, {"code": code, "message": message})

    def refused(self, line: BadLine) -> None:
        error = {"code": "invalid_line", "message": line.message, "param": line.param, "line": line.number}
        self._write(line.custom_id, None, error)

    def _write(self, custom_id: str | None, response: Any, error: Any) -> None:
        record = {"id": f"batch_req_{uuid4().hex}", "custom_id": custom_id}
        record |= {"response": response, "error": error}
        written = json.dumps(record).encode() + b"\n"
        while written:
            written = written[os.write(self._file, written) :]
        self._note(record)

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"{path}: another run writes to it") from None
        whole = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    # Never truncate another file: the user may have given a wrong name.
                    if not (line.startswith(HEAD) or HEAD.startswith(line)):
                        raise StartError(f"{path}, line {number}: this is not a result of a batch")
                    os.ftruncate(self._file, whole)
                    return
                self._note(self._read(line, f"{path}, line {number}"))
                whole += len(line)

    @staticmethod
    def _read(line: bytes, where: str) -> dict[str, Any]:
        try:
            record = from_json(line)
            if not str(record["id"]).startswith("batch_req_") or not isinstance(
                record["custom_id"], str | None
            ):
                raise ValueError
            response, error = record["response"], record["error"]
            if not isinstance(response["status_code"] if error is None else error.get("line", 0), int):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StartError(f"{where}: this is not a result of a batch; give another file") from None
        return record  # type: ignore[no-any-return]

    def _note(self, record: dict[str, Any]) -> None:
        error, response = record["error"], record["response"]
        if error is not None and "line" in error:
            self._bad_lines.add(error["line"])
        else:
            self._ids.add(record["custom_id"])
        self.failed += error is not None or response["status_code"] >= 400

"""The safetensors files of a folder: finds them, explains why one cannot be read, and maps their tensors.

Nothing is copied here.  A tensor is a view of its mapped file.  The system reads pages when they are touched,
or before, if we ask for it (`Stored.announce`), and frees them when we no longer need them
(`Stored.release`), so that a model is never in memory twice while it is loaded.  For uploads, `Stored.region`
is the place of a tensor's bytes in the file, and `Stored.of` makes the tensor from the uploaded bytes.

The format: 8 bytes with the length of the header, the header in JSON, the tensors one after the other
(https://github.com/huggingface/safetensors).  The header is checked by the safetensors library itself.
"""

from __future__ import annotations

import json
import mmap
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.config import CheckpointError
from model.loading.upload import Region

DTYPES = {"U8": torch.uint8, "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""The types that stored tensors may have."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file, or a part of one.

    file    the whole file, mapped
    dtype   its name in the file
    begin   offset of its first byte in the file
    nbytes  number of its bytes
    pitch   bytes from the beginning of a row to that of the next, if it is only some columns of a matrix;
            None: rows are contiguous
    """

    path: Path
    file: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int
    pitch: int | None = None

    def rows(self, begin: int, end: int) -> Stored:
        """Its rows [begin, end)."""
        count, *others = self.shape
        each = self.nbytes // count
        return replace(
            self,
            shape=(end - begin, *others),
            begin=self.begin + begin * (self.pitch or each),
            nbytes=(end - begin) * each,
        )

    def columns(self, begin: int, end: int) -> Stored:
        """Columns [begin, end) of a matrix."""
        count, width = self.shape
        item = DTYPES[self.dtype].itemsize
        return replace(
            self,
            shape=(count, end - begin),
            begin=self.begin + begin * item,
            nbytes=count * (end - begin) * item,
            pitch=self.pitch or width * item,
        )

    def tensor(self) -> Tensor:
        """The tensor; if it is contiguous, in the mapped memory of the file, which must not be written to."""
        if not self.nbytes:
            return self.of(torch.empty(0, dtype=torch.uint8))
        flat = torch.frombuffer(self.file, dtype=torch.uint8, count=self._span, offset=self.begin)
        if self.pitch is not None:
            rows, width = self.shape[0], self.nbytes // self.shape[0]
            return self.of(flat.as_strided((rows, width), (self.pitch, 1)).contiguous().flatten())
        return self.of(flat.clone() if self.begin % DTYPES[self.dtype].itemsize else flat)

    @property
    def region(self) -> Region:
        if self.pitch is None:
            return Region(self.path, self.begin, self.nbytes)
        return Region(self.path, self.begin, self.nbytes, (self.nbytes // self.shape[0], self.pitch))

    @property
    def _span(self) -> int:
        """Number of bytes from its first to its last, including those between rows."""
        if self.pitch is None:
            return self.nbytes
        rows = self.shape[0]
        return (rows - 1) * self.pitch + self.nbytes // rows

    def of(self, flat: Tensor) -> Tensor:
        """The tensor of its bytes `flat` [nbytes] uint8, in the same memory."""
        return flat.view(DTYPES[self.dtype]).view(self.shape)

    def announce(self) -> None:
        """Tell the system that the tensor will be read soon (MADV_WILLNEED)."""
        start = self.begin - self.begin % mmap.PAGESIZE
        if self.nbytes:
            self.file.madvise(mmap.MADV_WILLNEED, start, self.begin + self._span - start)

    def release(self) -> None:
        """Free the memory of its pages.  If the tensor is used again, the system reads them again."""
        start = self.begin + -self.begin % mmap.PAGESIZE
        end = self.begin + self._span
        length = end - end % mmap.PAGESIZE - start
        if length > 0:
            self.file.madvise(mmap.MADV_DONTNEED, start, length)


def weights_folder(folder: Path) -> Path:
    """`folder` if it has safetensors files, otherwise its original/ if that has.  Raises CheckpointError."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(
            f"{folder} {found}; the model should be a folder with config.json and *.safetensors"
        )
    for candidate in (folder, folder / "original"):
        if any(candidate.glob("*.safetensors")):
            return candidate
    files = sorted(path.name for path in folder.iterdir())
    for suffixes, kind in (
        ((".bin", ".pt", ".pth", ".ckpt"), "pickled weights, which can run code and are never loaded"),
        ((".gguf",), "GGUF weights, a format this server does not read"),
    ):
        if foreign := [name for name in files if name.endswith(suffixes)]:
            raise CheckpointError(f"{folder} holds {kind} ({foreign[0]}); it should hold *.safetensors")
    found = "holds no *.safetensors files" if files else "is empty"
    raise CheckpointError(f"{folder} {found}; it should hold a gpt-oss: config.json and *.safetensors")


def open_all(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's files, by its stored name.  Raises CheckpointError."""
    stored: dict[str, Stored] = {}
    for path in _files(folder):
        for name, tensor in _open(path).items():
            if name in stored:
                raise CheckpointError(f"{name} is stored twice in {folder}, the second time in {path.name}")
            stored[name] = tensor
    return stored


def _files(folder: Path) -> list[Path]:
    """The files that the index names; all safetensors files if there is no index."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not indexes:
        return sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(indexes[0].read_bytes())["weight_map"].values()))
        shards = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{indexes[0]} is not an index of safetensors: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise CheckpointError(f"{folder} lacks {some(missing)}, which {indexes[0].name} names")
    return shards


def _open(path: Path) -> dict[str, Stored]:
    """The tensors of one file; safetensors checks its header first."""
    try:
        with safe_open(path, framework="pt", device="cpu"), path.open("rb") as file:
            # Private and writable, because torch warns about read-only memory; nothing is written.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_unreadable(path, error)) from None
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            tensors[name] = Stored(path, mapped, entry["dtype"], tuple(entry["shape"]), begin, end - begin)
    return tensors


def _unreadable(path: Path, error: Exception) -> str:
    """The error for a file that safetensors refuses, with the reason."""
    # If the header is not an object of tensors, the file is damaged too, and the last message says so.
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError), path.open("rb") as file:
        start = file.read(8)
        size = path.stat().st_size
        if not size:
            return f"{path} is empty"
        if start == b"version ":
            return f"{path} is a Git LFS pointer, not the weights; fetch them with 'git lfs pull'"
        header = json.loads(file.read(min(int.from_bytes(start, "little"), size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if size < (whole := file.tell() + max(ends, default=0)):
            return f"{path} is truncated: it has {size} of {whole} bytes; copy it again"
    return f"{path} is not a safetensors file, or is damaged: {error}"


def some(names: list[str], most: int = 6) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

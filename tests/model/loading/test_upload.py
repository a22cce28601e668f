"""Uploaded bytes are those in the files, whatever the order of reading, and threads end with the context."""

import errno
import itertools
import mmap
import os
import random
import threading
import weakref

import pytest
import torch

from model.loading import upload
from model.loading.upload import Buffer, Region, SharedMemory, Uploads

CPU = torch.device("cpu")
PIECE = 64
POISON = 0xA5


@pytest.fixture
def files(tmp_path):
    """Two files with random bytes."""
    noise = random.Random(7)
    paths = [tmp_path / "one", tmp_path / "two"]
    for path, size in zip(paths, (3001, 1999), strict=True):
        path.write_bytes(noise.randbytes(size))
    return paths


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not uploading()


def uploading():
    return [thread for thread in threading.enumerate() if thread.name.startswith("upload-")]


def held(region):
    with region.path.open("rb") as file:
        file.seek(region.begin)
        return file.read(region.nbytes)


def said(tensor):
    return bytes(tensor.tolist())


class Late(SharedMemory):
    """A device that makes copies only when one of them is waited for: then it makes that one, and
    all that were sent before, from the current contents of the buffers."""

    def __init__(self):
        super().__init__(CPU)
        self.sent = []
        self.lock = threading.Lock()

    def buffer(self, nbytes):
        return LateBuffer(self, nbytes)

    def place(self, nbytes):
        return torch.full((nbytes,), POISON, dtype=torch.uint8)

    def send(self, buffer, size, target):
        with self.lock:
            self.sent.append((buffer, size, target))

    def copy(self, wanted):
        """Make copies until no `wanted` one is pending."""
        with self.lock:
            while any(wanted(buffer) for buffer, _, _ in self.sent):
                buffer, size, target = self.sent.pop(0)
                target.copy_(buffer.bytes[:size])

    def arrive(self):
        self.copy(lambda buffer: True)


class LateBuffer(Buffer):
    def __init__(self, channel, nbytes):
        super().__init__(nbytes)
        self.channel = channel
        self.closed = False

    def wait(self):
        self.channel.copy(lambda buffer: buffer is self)

    def close(self):
        self.wait()
        self.closed = True


CHANNELS = {"plain": lambda: SharedMemory(CPU), "late": Late}


@pytest.fixture(params=CHANNELS.values(), ids=CHANNELS)
def channel(request):
    return request.param()


def regions_of(files, seed):
    """Regions of all sizes and alignments: overlapping, empty, with one, exactly two and many pieces."""
    noise = random.Random(seed)
    sizes = [0, 1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 997, 0]
    sizes += [noise.randrange(500) for _ in range(40)]
    noise.shuffle(sizes)
    paths = [noise.choice(files) for _ in sizes]
    begins = [noise.randrange(path.stat().st_size - size) for path, size in zip(paths, sizes, strict=True)]
    return [Region(*each) for each in zip(paths, begins, sizes, strict=True)]


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_each_region_arrives_in_its_turn_to_the_last_byte(files, channel, threads):
    """If a buffer were reused before its copy, the tensor would have a later piece's bytes; a tensor that
    were returned before its copies, would have the initial contents."""
    for seed in range(10):
        regions = regions_of(files, seed)
        with Uploads(regions, channel, threads, PIECE) as uploads:
            arrived = [said(tensor) for tensor in uploads]
        assert arrived == [held(region) for region in regions], seed


def test_every_alignment_in_the_file_will_do(files):
    regions = [Region(files[0], begin, 8 * 5) for begin in range(17)]
    with Uploads(regions, SharedMemory(CPU), 2, PIECE) as uploads:
        for region, tensor in zip(regions, uploads, strict=True):
            assert said(tensor.view(torch.float64).view(torch.uint8)) == held(region)


def test_reads_that_stop_short_go_on(files, monkeypatch):
    """The system may return fewer bytes than requested."""
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, into, offset: preadv(file, [into[0][:7]], offset))
    with Uploads([Region(files[0], 3, 700)], SharedMemory(CPU), 2, PIECE) as uploads:
        assert said(next(uploads)) == held(Region(files[0], 3, 700))


def test_each_thread_has_two_buffers_and_gives_them_back(files):
    made = []

    class Counting(Late):
        def buffer(self, nbytes):
            made.append(super().buffer(nbytes))
            return made[-1]

    with Uploads(regions_of(files, 0), Counting(), 3, PIECE) as uploads:
        list(uploads)
    assert 1 <= len(made) <= 3 * upload.BUFFERS
    assert all(buffer.closed for buffer in made)


def test_a_thread_reads_into_one_buffer_while_the_other_travels(files):
    used = []

    class Noting(Late):
        def send(self, buffer, size, target):
            used.append(buffer)
            super().send(buffer, size, target)

    with Uploads([Region(files[0], 0, 3000)], Noting(), 1, PIECE) as uploads:
        next(uploads)
    assert len(set(used)) == 2
    assert all(one is not next for one, next in itertools.pairwise(used))


def test_little_is_taken_of_the_device_before_it_is_asked_for(files, monkeypatch):
    monkeypatch.setattr(upload, "AHEAD_BYTES", 1000)
    placed = []

    class Counting(SharedMemory):
        def place(self, nbytes):
            placed.append(nbytes)
            return super().place(nbytes)

    regions = [Region(files[0], 0, 300)] * 20
    with Uploads(regions, Counting(CPU), 2, PIECE) as uploads:
        for taken, _ in enumerate(uploads, 1):
            assert len(placed) == min(taken + 4, 20)  # 4 of 300 are the first to reach 1000


def test_memory_of_the_device_is_free_when_its_tensor_is_let_go(files):
    """Also while threads are idle: before, a reference to the last piece kept the whole tensor alive."""
    freed = threading.Event()

    class Watched(SharedMemory):
        def place(self, nbytes):
            memory = mmap.mmap(-1, nbytes)
            weakref.finalize(memory, freed.set)
            return torch.frombuffer(memory, dtype=torch.uint8)

    with Uploads([Region(files[0], 0, 10)], Watched(CPU), 3, PIECE) as uploads:
        tensor = next(uploads)
        assert not freed.is_set()
        del tensor
        assert freed.wait(60)
        assert len(uploading()) == 3


# What goes wrong


def test_a_file_that_ends_too_early_is_named(files, channel):
    """The file was long enough when its header was read."""
    regions = [Region(files[1], 0, 1000), Region(files[0], 100, 2000), Region(files[1], 0, 1999)]
    os.truncate(files[0], 1500)
    with (
        Uploads(regions, channel, 3, PIECE) as uploads,
        pytest.raises(OSError, match="ends at byte 1500") as raised,
    ):
        list(uploads)
    assert raised.value.filename == str(files[0])


def test_a_disk_that_fails_is_reported_with_the_files_name(files, monkeypatch):
    def preadv(file, into, offset):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", preadv)
    with Uploads([Region(files[0], 0, 1000)], SharedMemory(CPU), 3, PIECE) as uploads:
        for _ in range(2):  # whoever asks again hears it again
            with pytest.raises(OSError, match="Input/output error") as raised:
                next(uploads)
    assert raised.value.filename == str(files[0])


def test_a_file_that_is_not_there_is_reported(tmp_path):
    with (
        Uploads([Region(tmp_path / "nowhere", 0, 10)], SharedMemory(CPU), 3, PIECE) as uploads,
        pytest.raises(FileNotFoundError, match="nowhere"),
    ):
        next(uploads)


@pytest.mark.parametrize("method", ["thread", "buffer", "send"])
def test_whatever_a_thread_dies_of_reaches_the_caller(files, monkeypatch, method):
    def fails(self, *arguments):
        raise RuntimeError("no memory can be pinned")

    monkeypatch.setattr(SharedMemory, method, fails)
    uploads = Uploads([Region(files[0], 0, 1000)], SharedMemory(CPU), 3, PIECE)
    with uploads, pytest.raises(RuntimeError, match="no memory can be pinned"):
        next(uploads)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_early_ends_all_threads(files, channel, error):
    """Some pieces are not read yet, and some copies are pending."""
    regions = [Region(files[0], 0, 3000)] * 50
    with pytest.raises(error), Uploads(regions, channel, 3, PIECE) as uploads:  # noqa: PT012
        next(uploads)
        raise error


def test_one_that_fails_stops_the_others(files, monkeypatch):
    """The others finish their piece, and read no further one."""
    preadv, told, others = os.preadv, threading.Event(), []

    def read(file, into, offset):
        if offset == 0:
            raise OSError(errno.EIO, "Input/output error")
        others.append(offset)
        assert told.wait(60)
        return preadv(file, into, offset)

    monkeypatch.setattr(os, "preadv", read)
    with Uploads([Region(files[0], 0, 3000)], SharedMemory(CPU), 3, PIECE) as uploads:
        with pytest.raises(OSError, match="Input/output"):
            next(uploads)
        told.set()
    assert len(others) <= 2


def test_work_in_inference_mode_and_out_of_it(files):
    """A tensor made in inference mode can be written only there, and each thread has its own mode."""
    region = Region(files[0], 5, 500)
    for mode in (True, False):
        with torch.inference_mode(mode), Uploads([region], SharedMemory(CPU), 2, PIECE) as uploads:
            (tensor,) = uploads
        assert tensor.is_inference() == mode
        assert said(tensor) == held(region)

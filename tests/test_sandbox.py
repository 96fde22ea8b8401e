"""The sandbox: order, limits, death of workers, and that nothing outlives the parent."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from indexer.limits import Limits
from indexer.sandbox import Sandbox
from indexer.sandbox.child import FILES_PER_WORKER
from indexer.sandbox.parcels import Outbox, unpacked
from indexer.sandbox.pool import Pool
from indexer.sandbox.streams import AHEAD, BUNCH
from indexer.sandbox.wire import WireError, frame_message, frame_of, plain, rebuild, receive, send
from indexer.sources import Frame, Plane, Rejection, Scan, Source, Wanted
from retrieval.errors import LimitExceeded, PrecedentError, RejectedInput
from retrieval.types import Attributes, Image
from tests.volume_files import write_nifti


def picture(path: Path, value: int, side: int = 16) -> Source:
    Pillow.fromarray(np.full((side, side), value, np.uint8)).save(path)
    return Source(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A gzipped volume that takes long enough to decode for a signal to arrive in the middle."""
    path = tmp_path_factory.mktemp("large") / "large.nii.gz"
    noise = np.random.default_rng(0).integers(0, 1000, (256, 256, 200), np.int16)
    write_nifti(path, noise, np.diag([1.0, 1.0, 1.0, 1.0]))
    return Source(path)


def worker_pids() -> list[int]:
    """The workers of the sandbox opened last: children of our youngest template."""
    templates = [child for child in psutil.Process().children() if "indexer.sandbox.child" in child.cmdline()]
    youngest = max(templates, key=lambda template: (template.create_time(), template.pid))
    return [worker.pid for worker in youngest.children()]


def test_answers_come_in_the_order_of_the_requests(sandbox: Sandbox, tmp_path: Path) -> None:
    sources = [picture(tmp_path / f"{value:03}.png", value, 8 + value % 200) for value in range(60)]
    scans = list(sandbox.scan(sources))
    assert [scan.source for scan in scans] == sources
    frames = list(sandbox.read(Wanted(source, "raster") for source in sources))
    assert [int(frame.image.pixels[0, 0]) for frame in frames if isinstance(frame, Frame)] == list(range(60))


def test_an_endless_input_is_consumed_only_a_little_ahead(tmp_path: Path) -> None:
    source = picture(tmp_path / "one.png", 7)
    taken = itertools.count()

    def endless() -> Iterator[Source]:
        while True:
            next(taken)
            yield source

    with Sandbox(2, Limits()) as sandbox:
        answers = sandbox.scan(endless())
        for _ in range(50):
            assert isinstance(next(answers), Scan)
        answers.close()  # type: ignore[attr-defined]
        assert next(taken) <= 50 + 2 * AHEAD + BUNCH
        assert sandbox.scan_one(source).rows == 16  # and the workers are free again


def test_a_volume_streams_and_its_worker_waits(tmp_path: Path) -> None:
    path = tmp_path / "slabs.nii"
    voxels = np.arange(200, dtype=np.int16)[None, None, :] * np.ones((256, 256, 1), np.int16)
    write_nifti(path, voxels, np.diag([1.0, 1.0, 1.0, 1.0]))  # 26 MB: more than what may wait
    with Sandbox(1, Limits()) as sandbox:
        stream = sandbox.read([Wanted(Source(path), "nifti")])
        values = [int(frame.image.pixels[0, 0]) for frame in stream if isinstance(frame, Frame)]
        assert values == list(range(200))
        stream = sandbox.read([Wanted(Source(path), "nifti", (7, 3))])
        assert [frame.index for frame in stream if isinstance(frame, Frame)] == [7, 3]


def test_what_is_read_may_come_from_a_scan_of_the_same_sandbox(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.nii" for number in range(4)]
    for path in paths:
        write_nifti(path, np.zeros((256, 256, 100), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))  # 13 MB each
    with Sandbox(1, Limits()) as sandbox:
        scans = sandbox.scan(Source(path) for path in paths)
        frames = sandbox.read(Wanted(scan.source, scan.format) for scan in scans if isinstance(scan, Scan))
        assert sum(isinstance(frame, Frame) for frame in frames) == 400
        assert len(worker_pids()) <= 2
        assert sandbox.scan_one(Source(paths[0])).frames == 100


def test_a_worker_is_replaced_after_many_files(tmp_path: Path) -> None:
    source = picture(tmp_path / "one.png", 1)
    with Sandbox(1, Limits()) as sandbox:
        sandbox.scan_one(source)
        before = worker_pids()
        assert sum(isinstance(answer, Scan) for answer in sandbox.scan([source] * FILES_PER_WORKER)) == FILES_PER_WORKER
        sandbox.scan_one(source)
        assert not set(worker_pids()) & set(before)


def test_ctrl_c_ends_everything_quietly(tmp_path: Path) -> None:
    source = picture(tmp_path / "one.png", 1)
    program = (
        "import sys, itertools; from pathlib import Path\n"
        "from indexer.limits import Limits; from indexer.sandbox import Sandbox; from indexer.sources import Source\n"
        "try:\n"
        "    with Sandbox(2, Limits()) as sandbox:\n"
        "        for number, _ in enumerate(sandbox.scan(itertools.repeat(Source(Path(sys.argv[1]))))):\n"
        "            if number == 20: print('up', flush=True)\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    command = [sys.executable, "-c", program, str(source.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, complaints = parent.communicate(timeout=30)
        assert parent.returncode == 130
        assert complaints == b""
        assert not psutil.wait_procs(family, timeout=10)[1]


def test_leaving_a_stream_early_frees_its_worker(tmp_path: Path, large: Source) -> None:
    with Sandbox(1, Limits()) as sandbox:
        stream = sandbox.read([Wanted(large, "nifti")] * 3)
        assert isinstance(next(stream), Frame)
        stream.close()  # type: ignore[attr-defined]
        assert sandbox.scan_one(picture(tmp_path / "after.png", 1)).format == "raster"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE])
def test_a_worker_killed_while_it_decodes_costs_only_its_file(
    tmp_path: Path, large: Source, number: signal.Signals
) -> None:
    others = [picture(tmp_path / f"{value}.png", value) for value in range(5)]
    with Sandbox(1, Limits()) as sandbox:
        sandbox.scan_one(others[0])
        (pid,) = worker_pids()
        psutil.Process(pid).suspend()  # so that the signal finds it with the large file in hand
        answers = sandbox.scan([large, *others])
        killer = threading.Timer(0.2, lambda: (os.kill(pid, number), os.kill(pid, signal.SIGCONT)))
        killer.start()
        first = next(answers)
        killer.join()
        assert isinstance(first, Rejection)
        assert number.name in first.reason
        assert len(first.sha256) == 64
        assert [scan.format for scan in answers if isinstance(scan, Scan)] == ["raster"] * 5


def quick_pictures(folder: Path, count: int) -> list[Source]:
    return [picture(folder / f"quick-{number:03}.png", number) for number in range(count)]


def strike_whoever_opens(path: Path, number: signal.Signals, times: int) -> threading.Thread:
    """A decoder with a fault that only this file meets: its worker gets a signal when it has opened it."""

    def hunt() -> None:
        struck: set[int] = set()
        while len(struck) < times:
            for pid in set(worker_pids()) - struck:
                with contextlib.suppress(psutil.Error, ProcessLookupError):
                    if any(opened.path == str(path) for opened in psutil.Process(pid).open_files()):
                        os.kill(pid, number)
                        struck.add(pid)

    thread = threading.Thread(target=hunt, daemon=True)
    thread.start()
    return thread


def test_a_worker_ended_from_outside_costs_no_file_and_twice_costs_that_file(large: Source) -> None:
    wanted = Wanted(large, "nifti", (0, 100, 199))
    with Sandbox(1, Limits()) as sandbox:
        asked_undisturbed = [frame.digest for frame in sandbox.read([wanted]) if isinstance(frame, Frame)]
        once = strike_whoever_opens(large.path, signal.SIGKILL, 1)
        assert [frame.digest for frame in sandbox.read([wanted]) if isinstance(frame, Frame)] == asked_undisturbed
        once.join(timeout=30)
        twice = strike_whoever_opens(large.path, signal.SIGKILL, 2)
        (refused,) = sandbox.read([wanted])
        twice.join(timeout=30)
        assert not once.is_alive() and not twice.is_alive()
    assert isinstance(refused, Rejection) and "SIGKILL" in refused.reason and len(asked_undisturbed) == 3


def test_a_volume_cut_off_half_way_goes_on_where_it_was(large: Source) -> None:
    with Sandbox(1, Limits()) as sandbox:
        sandbox.scan_one(large)
        (pid,) = worker_pids()
        stream = sandbox.read([Wanted(large, "nifti")])
        first = next(stream)
        os.kill(pid, signal.SIGKILL)
        frames = [first, *stream]
    assert [frame.index for frame in frames if isinstance(frame, Frame)] == list(range(200))


def test_a_crash_in_the_middle_of_a_bunch_is_told_of_its_own_file_alone(tmp_path: Path, large: Source) -> None:
    quick = quick_pictures(tmp_path, 100)
    sources = [*quick[:90], large, *quick[90:]]  # by then, bunches have grown
    with Sandbox(1, Limits()) as sandbox:
        sandbox.scan_one(quick[0])
        hunter = strike_whoever_opens(large.path, signal.SIGSEGV, 2)  # once in its bunch, once alone
        answers = list(sandbox.scan(sources))
        hunter.join(timeout=30)
        assert not hunter.is_alive()
    assert [answer.source for answer in answers] == sources  # one answer each, in order
    (refused,) = (answer for answer in answers if isinstance(answer, Rejection))
    assert refused.source == large
    assert "SIGSEGV" in refused.reason


def test_a_crash_that_does_not_come_again_costs_no_file(tmp_path: Path, large: Source) -> None:
    quick = quick_pictures(tmp_path, 100)
    sources = [*quick[:90], large, *quick[90:]]
    with Sandbox(1, Limits()) as sandbox:
        sandbox.scan_one(quick[0])
        hunter = strike_whoever_opens(large.path, signal.SIGSEGV, 1)
        answers = list(sandbox.scan(sources))
        hunter.join(timeout=30)
        assert not hunter.is_alive()
    assert [answer.source for answer in answers if isinstance(answer, Scan)] == sources


def test_a_file_over_its_time_in_the_middle_of_a_bunch(tmp_path: Path, large: Source) -> None:
    quick = quick_pictures(tmp_path, 100)
    asked = [Wanted(source, "raster", (0,)) for source in quick]
    asked[90:90] = [Wanted(large, "nifti", (199,))]
    with Sandbox(1, Limits(seconds=2.0)) as sandbox:
        sandbox.scan_one(quick[0])
        hunter = strike_whoever_opens(large.path, signal.SIGSTOP, 2)
        answers = list(sandbox.read(asked))
        hunter.join(timeout=30)
        assert not hunter.is_alive()
    assert [answer.wanted.source if isinstance(answer, Frame) else answer.source for answer in answers] == [
        wanted.source for wanted in asked
    ]
    (refused,) = (answer for answer in answers if isinstance(answer, Rejection))
    assert refused.source == large
    assert refused.limit
    assert "task_seconds" in refused.reason
    values = [int(answer.image.pixels[0, 0]) for answer in answers if isinstance(answer, Frame)]
    assert values == list(range(100))


def test_a_refusal_in_a_bunch_ends_its_own_request_only(sandbox: Sandbox, tmp_path: Path) -> None:
    sources = quick_pictures(tmp_path, 150)
    for number in range(0, 150, 7):
        sources[number].path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")
    scans = list(sandbox.scan(sources))
    frames = list(sandbox.read(Wanted(source, "raster", (0,)) for source in sources))
    assert [scan.source for scan in scans] == sources
    assert [isinstance(scan, Rejection) for scan in scans] == [number % 7 == 0 for number in range(150)]
    assert [isinstance(frame, Rejection) for frame in frames] == [number % 7 == 0 for number in range(150)]


def test_leaving_in_the_middle_of_a_bunch_frees_its_worker(tmp_path: Path, large: Source) -> None:
    quick = quick_pictures(tmp_path, 100)
    with Sandbox(1, Limits()) as sandbox:
        stream = sandbox.scan([*quick[:90], large, *quick[90:]])
        for _ in range(80):
            assert isinstance(next(stream), Scan)
        stream.close()  # type: ignore[attr-defined]
        assert sandbox.scan_one(quick[0]).format == "raster"
        assert len(worker_pids()) == 1


def test_large_and_small_frames_and_volumes_keep_their_order(sandbox: Sandbox, tmp_path: Path) -> None:
    volume = tmp_path / "volume.nii"
    write_nifti(volume, np.zeros((16, 16, 3), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    sides = [8 + 3 * n for n in range(120)] + [1200, 2000, 9]  # the last but one take more than a parcel
    asked = [Wanted(picture(tmp_path / f"{n}.png", n, side), "raster", (0,)) for n, side in enumerate(sides)]
    asked[100:100] = [Wanted(Source(volume), "nifti")]
    frames = [frame for frame in sandbox.read(asked) if isinstance(frame, Frame)]
    assert [frame.wanted for frame in frames] == [*asked[:100], *[asked[100]] * 3, *asked[101:]]
    pictures = [frame for frame in frames if frame.wanted.format == "raster"]
    assert [frame.image.pixels.shape[0] for frame in pictures] == sides
    for number, frame in enumerate(pictures):
        assert (frame.image.pixels == number).all()
    assert all(frame.image.pixels.flags.aligned for frame in frames)


def test_the_digest_of_a_frame_is_of_its_shape_type_and_values(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "volume.nii"
    write_nifti(path, np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1.0, 1.0, 1.0, 1.0]))
    for frame in sandbox.read([Wanted(Source(path), "nifti")]):
        assert isinstance(frame, Frame)
        pixels = frame.image.pixels
        described = f"{pixels.shape}{pixels.dtype.str}".encode()
        assert frame.digest == blake3(described + pixels.tobytes()).digest()


def test_a_file_over_its_time_is_stopped(large: Source, tmp_path: Path) -> None:
    with (
        Sandbox(1, Limits(seconds=0.05)) as sandbox,
        pytest.raises(LimitExceeded, match=r"longer than 0.05 s \(task_seconds\)"),
    ):
        sandbox.read_one(Wanted(large, "nifti"))
    with Sandbox(1, Limits()) as sandbox:
        assert sandbox.scan_one(large).frames == 200


def test_time_spent_by_the_caller_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "slow-caller.nii"
    write_nifti(path, np.zeros((512, 512, 60), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    with Sandbox(1, Limits(seconds=2.0)) as sandbox:
        stream = sandbox.read([Wanted(Source(path), "nifti")])
        next(stream)
        time.sleep(2.5)
        assert sum(isinstance(frame, Frame) for frame in stream) == 59


def test_memory_is_bounded_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "big.nii.gz"
    write_nifti(path, np.zeros((512, 512, 480), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))  # 240 MB unpacked
    with Sandbox(1, Limits(memory_bytes=256 << 20)) as sandbox, pytest.raises(LimitExceeded, match="worker_memory_mb"):
        sandbox.read_one(Wanted(Source(path), "nifti", (0,)))


def test_many_threads_share_the_workers(sandbox: Sandbox, tmp_path: Path) -> None:
    sources = [picture(tmp_path / f"{value}.png", value) for value in range(8)]
    wrong: list[int] = []

    def ask(value: int) -> None:
        for _ in range(10):
            (image,) = sandbox.read_one(Wanted(sources[value], "raster"))
            if int(image.pixels[0, 0]) != value:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_sandbox_says_so(tmp_path: Path) -> None:
    sandbox = Sandbox(1, Limits())
    sandbox.scan_one(picture(tmp_path / "one.png", 1))
    sandbox.close()
    with pytest.raises(PrecedentError, match="closed"):
        sandbox.scan_one(Source(tmp_path / "one.png"))
    sandbox.close()


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    source = picture(tmp_path / "one.png", 1)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from indexer.limits import Limits; from indexer.sandbox import Sandbox; from indexer.sources import Source\n"
        "sandbox = Sandbox(1, Limits()); sandbox.scan_one(Source(Path(sys.argv[1]))); print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(source.path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 2  # the template and one worker
        parent.kill()
        parent.wait()
        gone, alive = psutil.wait_procs(family, timeout=10)
        assert len(gone) == 2
        assert not alive


def test_the_environment_of_a_worker_holds_no_secret(tmp_path: Path) -> None:
    program = (
        "import sys, os, psutil; from pathlib import Path\n"
        "from indexer.limits import Limits; from indexer.sandbox import Sandbox; from indexer.sources import Source\n"
        "with Sandbox(1, Limits()) as sandbox:\n"
        "    sandbox.scan_one(Source(Path(sys.argv[1])))\n"
        "    for child in psutil.Process().children(recursive=True): print(sorted(child.environ()))\n"
        "print('torch' in sys.modules, 'SimpleITK' in sys.modules)\n"
    )
    source = picture(tmp_path / "one.png", 1)
    environment = {**os.environ, "PRECEDENT_DATABASE_URL": "postgresql://user:secret@host/db"}
    told = subprocess.run(
        [sys.executable, "-c", program, str(source.path)], env=environment, capture_output=True, text=True, check=True
    )
    lines = told.stdout.splitlines()
    assert len(lines) == 3
    assert "PRECEDENT_DATABASE_URL" not in told.stdout
    assert "OMP_NUM_THREADS" in lines[0]
    assert lines[2] == "False False"


# --- bombs -----------------------------------------------------------------------------------------------------------


def refused(sandbox: Sandbox, source: Source) -> str:
    """The reason, after a check that no worker grew beyond 256 MB for it."""
    try:
        scan = sandbox.scan_one(source)
        sandbox.read_one(Wanted(source, scan.format))
    except RejectedInput as error:
        for pid in worker_pids():
            peak = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]
            assert int(peak) < 256 << 10
        return error.reason
    raise AssertionError("it was not refused")


@pytest.fixture
def fresh() -> Iterator[Sandbox]:
    with Sandbox(1, Limits()) as opened:
        yield opened


def nifti_header(shape: tuple[int, ...], bits: int = 16) -> bytearray:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, 4, bits)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\x00"
    return header


def test_a_tiny_gzip_that_declares_gigabytes(fresh: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(bytes(nifti_header((1000, 1000, 500)))))
    assert "truncated" in refused(fresh, Source(path))


def test_a_gzip_that_goes_on_behind_the_image(fresh: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(bytes(nifti_header((4, 4, 4))) + bytes(128) + bytes(300 << 20), 1))
    assert "past the declared image" in refused(fresh, Source(path))


def test_a_header_over_the_limits(fresh: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "huge.nii"
    path.write_bytes(bytes(nifti_header((30000, 30000, 2))))
    assert "max_megapixels" in refused(fresh, Source(path))
    path.write_bytes(bytes(nifti_header((2000, 2000, 2000))))
    assert "max_voxels_million" in refused(fresh, Source(path))
    path.write_bytes(b"NRRD0004\ntype: double\ndimension: 3\nsizes: 900000 900000 900000\nencoding: raw\n\n")
    assert "max_megapixels" in refused(fresh, Source(path))


def test_a_png_that_declares_too_many_pixels(fresh: Sandbox, tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1 << 20), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    assert "max_megapixels" in refused(fresh, Source(path))


def dicom_head(transfer_syntax: bytes) -> bytes:
    """Preamble, DICM and a file meta group with that transfer syntax (PS3.10 7.1)."""
    value = transfer_syntax + b"\x00" * (len(transfer_syntax) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(128) + b"DICM" + length + element


def test_a_deflated_dicom_bomb(fresh: Sandbox, tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = struct.pack("<HH2s2xI", 0x7FE0, 0x10, b"OB", 200 << 20)
    packed = deflate.compress(header) + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(200)) + deflate.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(dicom_head(b"1.2.840.10008.1.2.1.99") + packed)
    assert refused(fresh, Source(path))


def test_sequences_nested_without_end(fresh: Sandbox, tmp_path: Path) -> None:
    sequence = struct.pack("<HH2s2xI", 8, 0x1140, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    path = tmp_path / "nested.dcm"
    path.write_bytes(dicom_head(b"1.2.840.10008.1.2.1") + sequence * 5000)
    assert "nest" in refused(fresh, Source(path))


def test_zip_bombs(fresh: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.nii", bytes(nifti_header((4, 4, 4))) + bytes(64 << 20))
    with Sandbox(1, Limits(ratio=500.0)) as strict:
        assert "over the limit of 500 to 1" in refused(strict, Source(path, "zeros.nii"))
    with Sandbox(1, Limits(unpacked_bytes=1 << 20)) as strict:
        assert "unpacked bytes" in refused(strict, Source(path, "zeros.nii"))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(300):
            archive.writestr(str(number), b"")
    with Sandbox(1, Limits(zip_members=300)) as exact:
        assert refused(exact, Source(path, "7")) == "The file is empty."
    with Sandbox(1, Limits(zip_members=299)) as strict:
        assert "the limit is 299" in refused(strict, Source(path, "7"))


def test_a_zip_member_that_lies_about_its_size(fresh: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.nii", bytes(nifti_header((4, 4, 4))) + bytes(20 << 20))
    whole = path.read_bytes()
    real = struct.pack("<I", 352 + (20 << 20))
    path.write_bytes(whole.replace(real, struct.pack("<I", 1000)))
    assert "damaged" in refused(fresh, Source(path, "a.nii"))


def test_file_size_at_the_limit_and_one_past_it(tmp_path: Path) -> None:
    source = picture(tmp_path / "one.png", 1)
    size = source.path.stat().st_size
    with Sandbox(1, Limits(file_bytes=size)) as exact:
        assert exact.scan_one(source).bytes == size
    with Sandbox(1, Limits(file_bytes=size - 1)) as strict, pytest.raises(LimitExceeded, match="max_file_mb"):
        strict.scan_one(source)


def test_a_pipe_and_a_missing_file_are_refused_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "regular file"), ("gone.dcm", "can't be opened"), ("", "regular file")):
        with pytest.raises(RejectedInput, match=reason):
            sandbox.scan_one(Source(tmp_path / name))


# --- the wire --------------------------------------------------------------------------------------------------------

SCAN = Scan(
    source=Source(Path("a"), "b"),
    format="dicom",
    sha256="0" * 64,
    bytes=3,
    frames=1,
    planes=(Plane((0.0, 1.0, 2.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),),
    attributes=Attributes(age=61.5),
    declared=(("series", "AX T2"),),
    companions=(Path("c"),),
)


def test_a_scan_survives_the_wire() -> None:
    assert rebuild(Scan, json.loads(json.dumps(plain(SCAN)))) == SCAN


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(plain(SCAN))), JSON_VALUES)
@settings(max_examples=300)
def test_a_worker_can_not_smuggle_other_types(field: str, value: object) -> None:
    message = plain(SCAN) | {field: value}
    try:
        scan = rebuild(Scan, message)
    except WireError:
        return
    if field != "companions":  # Path("") is Path(".")
        assert plain(scan)[field] == value  # what passes is exactly what was declared
    assert isinstance(getattr(scan, field), (type(getattr(SCAN, field)), tuple, type(value)))


def test_pixels_that_do_not_fit_their_description() -> None:
    image = Image(np.arange(12, dtype=np.uint16).reshape(3, 4), spacing=(0.5, 0.5))
    header, blob = frame_message(2, image)
    index, back, _ = frame_of(header, bytearray(blob))
    assert index == 2
    assert back.spacing == (0.5, 0.5)
    np.testing.assert_array_equal(back.pixels, image.pixels)
    for change in (
        {"dtype": "object"},
        {"shape": [3, 5]},
        {"shape": [-3, -4]},
        {"shape": [3, 4, 3]},
        {"dtype": "float64"},
    ):
        with pytest.raises(WireError):
            frame_of(header | change, bytearray(blob))
    with pytest.raises(ValueError, match="float64"):
        frame_message(0, replace(image, pixels=np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("header", "blob"),
    [
        ({}, b""),
        ({"answers": {}}, b""),
        ({"answers": [3]}, b""),
        ({"answers": [{}]}, b""),
        ({"answers": [{"bytes": -16}]}, b""),
        ({"answers": [{"bytes": True}]}, bytes(16)),
        ({"answers": [{"bytes": 17}]}, bytes(16)),
        ({"answers": [{"bytes": 16}]}, bytes(32)),
        ({"answers": [{"bytes": 3}]}, bytes(3)),  # not filled up to where the next would begin
    ],
)
def test_parcels_that_do_not_fit_their_description(header: dict[str, object], blob: bytes) -> None:
    with pytest.raises(WireError):
        unpacked(header, memoryview(blob))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_a_parcel_holds_what_was_put_into_it(blobs: list[bytes]) -> None:
    here, there = socket.socketpair()
    with here, there:
        outbox = Outbox(there)
        for number, blob in enumerate(blobs):
            outbox.put({"kind": "frame", "number": number}, blob[:5], blob[5:])
        outbox.send()
        answers = unpacked(*receive(here, 1 << 20, 5.0))
        assert [(answer.header["number"], bytes(answer.blob)) for answer in answers] == list(enumerate(blobs))
        with pytest.raises(TimeoutError):
            receive(here, 1 << 20, 0.01)


def test_a_parcel_holds_a_copy_of_a_buffer_that_will_be_used_again() -> None:
    here, there = socket.socketpair()
    with here, there:
        outbox, buffer = Outbox(there), bytearray(b"first frame.....")
        outbox.put({"kind": "frame"}, memoryview(buffer), lasting=False)
        buffer[:] = b"second frame...."
        outbox.send()
        (answer,) = unpacked(*receive(here, 1 << 20, 5.0))
        assert bytes(answer.blob) == b"first frame....."


def test_a_file_is_read_by_the_worker_that_has_scanned_it(tmp_path: Path) -> None:
    pool = Pool(2, Limits())
    try:
        with pool.worker() as one, pool.worker() as two:
            one.ask([{"do": "digest", "path": str(tmp_path / "a"), "member": ""}])
            two.ask([{"do": "digest", "path": str(tmp_path / "b"), "member": ""}])
            one.answers()
            two.answers()
        for name, expected in (("a", one), ("b", two), ("a", one)):
            with pool.worker(str(tmp_path / name)) as found:
                assert found is expected
    finally:
        pool.close()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!IQ", 2, 1 << 40) + b"{}",
        struct.pack("!IQ", 0xFFFFFFFF, 0),
        struct.pack("!IQ", 2, 0) + b"[]",
        struct.pack("!IQ", 3, 0) + b"\xff\xff\xff",
        struct.pack("!IQ", 20000, 0) + b"[" * 20000,
    ],
)
def test_messages_that_are_not_the_protocol(sent: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(sent)
        with pytest.raises(WireError):
            receive(here, 1 << 20)
        send(there, {"kind": "end"})

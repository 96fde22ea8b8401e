"""Faster paths of a network: chosen by measurement, held to the vectors of float32, kept, and done without."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from retrieval.encoders import open_encoder
from retrieval.encoders.base import Encoder, EncoderCard
from retrieval.encoders.paths import exported, torch_paths
from retrieval.encoders.paths.base import EAGER, FastPath, Forward
from retrieval.encoders.paths.calibration import INVARIANCE, TOLERANCE
from retrieval.encoders.paths.choice import FOLDER, Choice, ChoiceStore
from retrieval.encoders.paths.execution import Execution
from retrieval.encoders.paths.machine import Machine
from retrieval.encoders.paths.memory import at_most
from retrieval.encoders.paths.prepare import (
    CALIBRATING,
    EARNING,
    calibrate_now,
    choose_while_encoding,
    follow_choice,
    tower_of,
)
from retrieval.encoders.paths.samples import sample_images
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.tower import ImageTower
from retrieval.errors import RejectedInput
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Image, UnitRows
from tests.encoder_files import make_timm
from tests.studies import write_pictures
from tests.test_cli import precedent

CPU = torch.device("cpu")
DIM = 12
PAUSE = 0.005  # seconds a frame: below this many a second, no path would be looked for


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Work(torch.nn.Module):
    """A small network that takes its time: ``pause`` seconds a frame, so that a path can be faster on any machine."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
        )
        self.head = torch.nn.Linear(32, DIM)
        self.pause = pause

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.pause:
            time.sleep(self.pause * len(pixels))
        rows: torch.Tensor = self.head(self.layers(pixels))
        return rows


def tower(forward: Callable[[torch.Tensor], torch.Tensor] | None = None) -> ImageTower:
    card = EncoderCard("work", "work", DIM, Recipe("work", (96, 96)), weights_sha256="3" * 64)
    return ImageTower(card, forward or Work(PAUSE).eval().requires_grad_(False), CPU)


def quick(off: float = 0.0) -> FastPath:
    """The same network without its pause; ``off`` is added to every second number of a row."""

    def build(forward: Forward, example: torch.Tensor) -> Forward:
        network = Work().eval().requires_grad_(False)
        return lambda pixels: network(pixels) + off * (torch.arange(DIM) % 2)

    return FastPath("quick", build)


@pytest.fixture(scope="module")
def chosen(one_thread: None) -> Choice:
    choice = calibrate_now(tower(), paths=[quick()])
    assert choice is not None and choice.path == "quick"
    return choice


def least_cosine(rows: UnitRows, others: UnitRows) -> float:
    return float(np.einsum("nd,nd->n", rows.astype(float), others.astype(float)).min())


# --- choosing ---


def test_the_fastest_path_that_keeps_the_vectors_is_taken(tmp_path: Path) -> None:
    encoder, eager = tower(), tower()
    choice = calibrate_now(encoder, tmp_path, paths=[quick()])
    assert choice is not None
    assert (choice.path, encoder.execution.path) == ("quick", "quick")
    assert choice.speed > 1 and choice.cosine > TOLERANCE and choice.images == CALIBRATING
    assert "quick" in choice.sentence
    assert least_cosine(encoder.encode(sample_images(21)), eager.encode(sample_images(21))) > 0.999999


@pytest.mark.parametrize("off", [0.02, float("nan")])
def test_a_path_with_other_vectors_is_refused_however_fast(off: float) -> None:
    encoder = tower()
    choice = calibrate_now(encoder, paths=[quick(off)])
    assert choice is not None
    assert (choice.path, encoder.execution.path) == (EAGER, EAGER)
    (trial,) = choice.trials
    assert trial.left_out and trial.cosine < TOLERANCE
    assert np.array_equal(encoder.encode(sample_images(3)), tower().encode(sample_images(3)))


def test_a_path_that_is_slower_is_not_taken() -> None:
    slow = FastPath("slow", lambda forward, example: Work(4 * PAUSE).eval())
    choice = calibrate_now(tower(), paths=[slow])
    assert choice is not None and choice.path == EAGER


def test_a_path_that_can_not_be_built_or_run_leaves_the_others(tmp_path: Path) -> None:
    def broken(forward: Forward, example: torch.Tensor) -> Forward:
        raise ValueError("no such operator\nand a long trace")

    choice = calibrate_now(tower(), paths=[FastPath("broken", broken), quick()])
    assert choice is not None and choice.path == "quick"
    assert choice.trials[0].left_out == "ValueError: no such operator"


def test_float32_paths_are_not_tried_once_they_can_not_win() -> None:
    choice = calibrate_now(tower(), paths=[quick(), FastPath("late", quick().build, single=True)])
    assert choice is not None and choice.path == "quick"
    assert "would not beat quick" in choice.trials[1].left_out


def test_a_network_that_is_fast_enough_is_left_alone() -> None:
    choice = calibrate_now(tower(Work().eval()), paths=[quick()])
    assert choice is not None and choice.path == EAGER and choice.trials == ()
    assert "fast enough" in choice.sentence


# --- the same vector in any batch ---


def by_batch(error: float) -> FastPath:
    """A path whose rows are a little off unless eight are computed together."""

    def build(forward: Forward, example: torch.Tensor) -> Forward:
        network = Work().eval().requires_grad_(False)

        def run(pixels: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = network(pixels)
            return rows if len(rows) == 8 else rows + error * rows.norm(dim=1, keepdim=True) * (torch.arange(DIM) % 2)

        return run

    return FastPath("by batch", build)


def test_a_path_that_depends_on_the_batch_is_run_at_one_size(tmp_path: Path) -> None:
    encoder = tower()
    choice = calibrate_now(encoder, paths=[by_batch(0.005)])
    assert choice is not None and (choice.path, choice.sizes) == ("by batch", (8,))
    images = sample_images(21)
    together = encoder.encode(images)
    alone = np.concatenate([encoder.encode([image]) for image in images])
    assert least_cosine(together, alone) > INVARIANCE


def test_a_path_that_depends_on_its_neighbours_is_refused() -> None:
    def build(forward: Forward, example: torch.Tensor) -> Forward:
        network = Work().eval().requires_grad_(False)
        return lambda pixels: network(pixels) + 0.02 * network(pixels.flip(0))

    choice = calibrate_now(tower(), paths=[FastPath("neighbours", build)])
    assert choice is not None and choice.path == EAGER
    assert choice.trials[0].left_out


@pytest.mark.parametrize("build", [torch_paths.bfloat16, exported.openvino_float32, exported.onnx_runtime])
def test_real_paths_keep_the_vectors_in_any_batch(
    build: Callable[[Forward, torch.Tensor], Forward], tmp_path: Path
) -> None:
    for library in {"openvino_float32": ["openvino"], "onnx_runtime": ["onnxruntime", "onnxscript"]}.get(
        build.__name__, []
    ):
        pytest.importorskip(library)
    make_timm("test_vit", tmp_path / "vit.safetensors")
    check_path(build, f"timm:test_vit@{tmp_path / 'vit.safetensors'}")


@pytest.mark.parametrize(
    ("build", "library"),
    [(exported.openvino_float32, "openvino"), pytest.param(exported.onnx_runtime, "onnx", marks=pytest.mark.slow)],
)
def test_the_default_encoder_goes_through_other_runtimes(
    build: Callable[[Forward, torch.Tensor], Forward], library: str
) -> None:
    pytest.importorskip(library)
    check_path(build, "compact")


def check_path(build: Callable[[Forward, torch.Tensor], Forward], spec: str) -> None:
    """That a path gives the vectors of the network itself, and the same ones in any batch."""
    fast, plain = (tower_of(open_encoder(spec, device="cpu")) for _ in range(2))
    assert fast and plain
    fast.execution.use(build.__name__, build(fast.execution.eager, fast.inputs(sample_images(2))), (1, 2, 4, 8))
    rows = fast.encode(sample_images(11))
    assert least_cosine(rows, plain.encode(sample_images(11))) > TOLERANCE
    assert least_cosine(rows[:1], fast.encode(sample_images(1))) > INVARIANCE


def test_a_forward_that_is_no_module_can_be_exported() -> None:
    pytest.importorskip("openvino")
    network = Work().eval().requires_grad_(False)
    forward = exported.openvino_float32(lambda pixels: network(pixels) * 2, torch.zeros(1, 3, 96, 96))
    inputs = tower(network).inputs(sample_images(3))
    assert torch.allclose(forward(inputs), network(inputs) * 2, atol=1e-5)


# --- keeping ---


def test_a_choice_is_kept_and_followed_without_measuring_again(tmp_path: Path) -> None:
    made = calibrate_now(tower(), tmp_path, paths=[quick()])
    later = tower()
    assert follow_choice(later, tmp_path, paths=[quick()]) == made
    assert later.execution.path == EAGER  # built when it is needed
    later.encode(sample_images(1))
    assert later.execution.path == "quick"
    assert follow_choice(tower(), tmp_path / "other") is None


def test_the_first_frames_in_numbers_decide_once(tmp_path: Path) -> None:
    encoder, said = tower(), list[Choice]()
    choose_while_encoding(encoder, tmp_path, said.append)
    encoder.encode(sample_images(CALIBRATING - 1))
    assert not said and not (tmp_path / FOLDER).exists()
    threads = [Thread(target=encoder.encode, args=(sample_images(CALIBRATING),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    kept = (tmp_path / FOLDER).iterdir().__next__().read_bytes()
    choose_while_encoding(tower(), tmp_path, said.append)
    assert said[1] == said[0]
    assert next((tmp_path / FOLDER).iterdir()).read_bytes() == kept


def test_a_job_of_few_files_is_measured_only_when_they_hold_many_frames(tmp_path: Path) -> None:
    encoder, said = tower(Work().eval()), list[Choice]()
    choose_while_encoding(encoder, tmp_path, said.append, sources=EARNING - 1)
    frames = sample_images(CALIBRATING)
    for _ in range(EARNING // CALIBRATING - 1):
        encoder.encode(frames)
    encoder.encode(frames[: CALIBRATING - 1])
    assert not said and not (tmp_path / FOLDER).exists()
    encoder.encode(frames[:1])  # so many have come, but not together
    assert not said
    encoder.encode(frames)
    assert len(said) == 1 and len(list((tmp_path / FOLDER).iterdir())) == 1


def test_a_job_of_many_files_is_run_in_one_way_from_its_first_batch(tmp_path: Path) -> None:
    encoder, said = tower(Work().eval()), list[Choice]()
    choose_while_encoding(encoder, tmp_path, said.append, sources=EARNING)
    encoder.encode(sample_images(CALIBRATING))
    assert len(said) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "number", "list", "empty", "binary"])
def test_a_damaged_choice_is_told_and_made_again(
    damage: str, chosen: Choice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ChoiceStore(tmp_path).save(chosen)
    (file,) = (tmp_path / FOLDER).iterdir()
    text = file.read_text()
    spoilt = {
        "cut": text[: len(text) // 2],
        "flipped": text.replace('"path": "quick"', '"path": "quack"'),
        "number": "17",
        "list": "[]",
        "empty": "",
        "binary": "\0\x01",
    }
    file.write_text(spoilt[damage])
    with caplog.at_level(logging.WARNING):
        assert follow_choice(tower(), tmp_path, paths=[quick()]) is None
    assert "damaged" in caplog.text
    ChoiceStore(tmp_path).save(chosen)
    assert follow_choice(tower(), tmp_path, paths=[quick()]) is not None


def test_another_machine_library_or_encoder_has_a_choice_of_its_own(chosen: Choice, tmp_path: Path) -> None:
    ChoiceStore(tmp_path).save(chosen)
    store, here = ChoiceStore(tmp_path), Machine.here(CPU)
    assert store.load(chosen.fingerprint, here) == chosen
    for other in (
        replace(here, cpu="another"),
        replace(here, features=(*here.features, "avx999")),
        replace(here, threads=here.threads + 1),
        replace(here, device="another GPU, 80 GiB"),
        replace(here, versions=(*here.versions[1:], "torch 99")),
    ):
        assert store.load(chosen.fingerprint, other) is None
        store.save(replace(chosen, machine=other, path="theirs"))
    assert store.load("another-0123456789ab", here) is None
    assert store.load(chosen.fingerprint, here) == chosen  # those of the others are beside it


def test_a_choice_under_another_name_is_not_believed(
    chosen: Choice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ChoiceStore(tmp_path).save(chosen)
    (file,) = (tmp_path / FOLDER).iterdir()
    ChoiceStore(tmp_path).save(replace(chosen, fingerprint="another"))
    (other,) = set((tmp_path / FOLDER).iterdir()) - {file}
    other.replace(file)
    assert follow_choice(tower(), tmp_path) is None
    assert "damaged" in caplog.text


def test_a_path_that_is_gone_leaves_eager_with_a_notice(
    chosen: Choice, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ChoiceStore(tmp_path).save(chosen)
    encoder = tower()
    follow_choice(encoder, tmp_path, paths=[])
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(sample_images(2))
    assert "can't be used" in caplog.text and encoder.execution.path == EAGER
    assert np.array_equal(rows, tower().encode(sample_images(2)))


def test_a_gallery_follows_the_choice_unless_told_to_stay_with_float32(tmp_path: Path) -> None:
    make_timm("test_vit", tmp_path / "vit.safetensors")
    spec = f"timm:test_vit@{tmp_path / 'vit.safetensors'}"
    home = tmp_path / "home"
    encoder = open_encoder(spec, device="cpu")
    made = calibrate_now(encoder, paths=[FastPath("torch-bfloat16", torch_paths.bfloat16)])
    assert made is not None
    ChoiceStore(home).save(replace(made, path="torch-bfloat16", sizes=(4,)))
    for precision, path in (("auto", "torch-bfloat16"), ("float32", EAGER)):
        with Gallery.open(Settings(home=home, encoder=spec, precision=precision), create=True) as gallery:
            gallery.warm_up()
            fast = tower_of(gallery.encoder)
            assert fast and fast.execution.path == path


@pytest.mark.slow  # three folders indexed, paths compiled and timed
def test_the_command_says_how_it_encodes_and_does_without_when_told(tmp_path: Path) -> None:
    make_timm("test_vit", tmp_path / "vit.safetensors")
    write_pictures(tmp_path / "few", CALIBRATING)
    write_pictures(tmp_path / "in", EARNING)
    index = ("index", tmp_path / "in", "--encoder", f"timm:test_vit@{tmp_path / 'vit.safetensors'}")
    exact = precedent(*index, "--precision", "float32", home=tmp_path / "exact")
    assert "Encoding with" not in exact.stderr and not (tmp_path / "exact" / FOLDER).exists()
    few = precedent("index", tmp_path / "few", *index[2:], home=tmp_path / "fast")
    assert "Encoding with" not in few.stderr and not (tmp_path / "fast" / FOLDER).exists()
    fast = precedent(*index, "--no-resume", home=tmp_path / "fast")
    assert "Encoding with" in fast.stderr and len(list((tmp_path / "fast" / FOLDER).iterdir())) == 1
    again = precedent(*index, "--no-resume", home=tmp_path / "fast")
    assert [line for line in again.stderr.splitlines() if "Encoding with" in line] == [
        line for line in fast.stderr.splitlines() if "Encoding with" in line
    ]


def test_what_is_no_torch_tower_is_left_alone(tmp_path: Path) -> None:
    encoder: Encoder = open_encoder("classical")
    assert calibrate_now(encoder, tmp_path) is None
    assert follow_choice(encoder, tmp_path) is None
    choose_while_encoding(encoder, tmp_path)
    assert not (tmp_path / FOLDER).exists()


# --- memory ---


class Cramped:
    """A network on a device with room for ``room`` frames; ``seen`` are the batches it has been given."""

    def __init__(self, room: int, error: Callable[[], BaseException]) -> None:
        self.room, self.error, self.seen = room, error, list[int]()
        self.network = Work().eval().requires_grad_(False)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error()
        rows: torch.Tensor = self.network(pixels)
        return rows


OUT_OF_MEMORY: tuple[Callable[[], BaseException], ...] = (
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError,
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_goes_on(
    error: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    cramped = Cramped(5, error)
    encoder = tower(cramped)
    images = sample_images(20)
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(images)
    assert cramped.seen == [16, 8, 4, 4, 4, 4, 4]  # what was too much once is not tried again
    assert "Out of memory with 16 frames" in caplog.text
    assert least_cosine(rows, tower(Work().eval()).encode(images)) > INVARIANCE


def test_a_network_without_room_to_be_measured_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    encoder = tower(Cramped(5, MemoryError))
    assert calibrate_now(encoder, paths=[quick()]) is None
    assert "too little memory" in caplog.text
    assert encoder.encode(sample_images(7)).shape == (7, DIM)


def test_a_path_of_one_size_goes_on_with_half_of_it(caplog: pytest.LogCaptureFixture) -> None:
    cramped = Cramped(3, MemoryError)
    execution = Execution(cramped, CPU)
    execution.use("fixed", cramped, (8,))
    inputs = tower().inputs(sample_images(5))
    assert execution.rows(inputs).shape == (5, DIM)
    assert cramped.seen == [8, 4, 2, 2, 2]
    assert "not checked with 2 frames" in caplog.text


def test_no_room_for_one_frame_is_an_error_that_says_so() -> None:
    with pytest.raises(RejectedInput, match="single frame"):
        tower(Cramped(0, MemoryError)).encode(sample_images(2))


def test_other_errors_of_a_network_are_not_taken_for_memory() -> None:
    def fail(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        tower(fail).encode(sample_images(2))


@pytest.mark.parametrize(("room", "most"), [(0, 1), (1, 1), (7, 4), (64, 64), (10_000, 128)])
def test_batches_are_powers_of_two_that_fit(room: int, most: int) -> None:
    assert at_most(room) == most


# --- the frames that are always at hand ---


def test_samples_are_the_same_everywhere_and_no_two_alike() -> None:
    images = sample_images(6)
    again = sample_images(3)
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(images, again, strict=False))
    assert len({image.pixels.tobytes() for image in images}) == 6
    assert all(image.pixels.dtype == np.uint8 and image.pixels.std() > 20 for image in images)


def test_a_choice_is_readable_as_json(tmp_path: Path) -> None:
    calibrate_now(tower(), tmp_path, [Image(np.eye(40, dtype=np.uint8) * 200)], paths=[quick()])
    (file,) = (tmp_path / FOLDER).iterdir()
    body = json.loads(file.read_text())["choice"]
    assert body["path"] == "quick" and body["machine"]["device"] == "cpu"

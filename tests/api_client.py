"""A small gallery of generated studies behind the real app."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from indexer.sandbox import Sandbox
from retrieval.settings import Settings
from retrieval.types import Case, Label
from tests.processes import light
from tests.studies import index_all, open_gallery, write_pictures, write_series

ADDRESS = "http://127.0.0.1:8000"
SECRET_NAME = "Mustermann-Erika"  # a patient's name, in file names: must never come back


@dataclass(frozen=True, slots=True)
class Seeded:
    """``series``: CT volumes of 5 slices, two of patient P1, one of P2. ``pictures``: PNGs without a patient."""

    home: Path
    studies: Path
    series: tuple[str, ...]
    pictures: tuple[str, ...]

    def files_of(self, seed: int) -> list[Path]:
        """The DICOM files of one of the series."""
        return sorted((self.studies / f"series{seed}").rglob("*.dcm"))


def seed(folder: Path, sandbox: Sandbox) -> Seeded:
    """Index the studies into ``folder/home``; labels and a report on the first series."""
    studies = folder / SECRET_NAME
    for number, patient in enumerate(["P1", "P1", "P2"]):
        write_series(studies / f"series{number}", 5, seed=number, patient=patient)
    write_pictures(studies / "pictures", 4)
    home = folder / "home"
    with open_gallery(home) as gallery:
        report = index_all(gallery, sandbox, studies)
        if not report.ok:
            raise AssertionError(f"seeding failed: {report}")
        cases = gallery.catalog.list_cases()
        series = tuple(_volume(cases, number) for number in range(3))
        labels = [Label("finding", "nodule"), Label("diameter", "12", 12.0)]
        gallery.catalog.update(series[0], labels=labels, report="A nodule of 12 mm. " * 30)
    pictures = tuple(case.case_id for case in cases if case.kind == "image")
    return Seeded(home, studies, series, pictures)


def _volume(cases: list[Case], number: int) -> str:
    ordered = sorted((case for case in cases if case.kind == "volume"), key=lambda case: case.series_uid)
    return ordered[number].case_id


@contextmanager
def served(home: Path, **settings: Any) -> Iterator[TestClient]:
    """The real app over a data directory; errors of the app are answered, not raised."""
    app = create_app(Settings(home=home, workers=2, **{**light(home), **settings}))
    with client_of(app) as client:
        yield client


@contextmanager
def client_of(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
        yield client


def parts(paths: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files for a multipart body, under telling names."""
    return [("files", (f"{SECRET_NAME}/{path.name}", path.read_bytes())) for path in paths]


def zipped(paths: list[Path]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in paths:
            archive.write(path, f"{SECRET_NAME}/{path.name}")
    return packed.getvalue()

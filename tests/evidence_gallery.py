"""A gallery of made-up vectors whose cases have reports, labels and patients: for bundles of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, FrameRef, Label

ONE, STRANGER = f"{60:016d}", "stranger"
PLAIN = "FINDINGS: No evidence of pneumonia. Heart size is normal. IMPRESSION: Normal chest. No effusion."


def evidence_gallery(home: Path, reports: Sequence[str], *, patients: Sequence[str] = ()) -> Gallery:
    """One case per report, ever less like the first; ids count from 1. Every other one is labelled 'mass'."""
    gallery = Gallery.open(Settings(home=home, encoder="classical"), create=True)
    dim = gallery.encoder.card.dim
    near = np.zeros(dim, dtype=np.float32)
    near[0] = 1.0
    cases = []
    for n, report in enumerate(reports, 1):
        vector = near.copy()
        vector[1] = 0.05 * (n - 1)
        vector /= np.linalg.norm(vector)
        case = Case(
            f"{n:016d}",
            CaseKind.IMAGE,
            Attributes(modality="DX", body_part="CHEST", sex="F", age=35.0 + 9 * n),
            (Label("finding", "mass" if n % 2 else "none"), Label("size", str(n), float(n))),
            report,
            patients[n - 1] if patients else f"patient-{n}",
            content_sha256=f"{n:064x}",
            pixel_sha256=f"{n:064x}",
            frames=(FrameRef(0, 0, None),),
        )
        cases.append(EmbeddedCase(case, Embedding(vector, vector[None, :], (0,))))
    gallery.add(cases)
    return gallery


def crowd(home: Path) -> Path:
    """A hundred and twenty chests alike, each of its own patient (``ONE`` is amidst them), and a stranger."""
    with evidence_gallery(home, [PLAIN] * 120) as gallery:
        vector = np.zeros(gallery.encoder.card.dim, dtype=np.float32)
        vector[9] = 1.0
        about = Attributes(modality="DX", body_part="CHEST")
        stranger = Case(STRANGER, CaseKind.IMAGE, about, patient_key="stranger", content_sha256="5" * 64)
        gallery.add([EmbeddedCase(stranger, Embedding(vector, vector[None, :], (0,)))])
    return home

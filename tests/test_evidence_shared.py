"""Evidence for real teaching cases: every citation opens a case, and every quoted sentence stands in its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.evidence.budget import token_estimate
from retrieval.evidence.bundle import gather
from retrieval.evidence.cleaning import cleaned
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.quoting import quotable
from tests.evidence_gallery import evidence_gallery
from tests.shared_data import labels

TAKEN = 120


@pytest.fixture(scope="module")
def reports(shared: Path) -> list[str]:
    folder = shared / "data"
    if not (folder / "medpix2" / "labels.csv").is_file():
        pytest.skip("the shared reports are not here")
    return [row["report"] for row in labels(folder, "medpix2") if row["report"].strip()][:TAKEN]


def test_citations_resolve(reports: list[str], tmp_path: Path) -> None:
    with evidence_gallery(tmp_path, reports) as gallery:
        for n in np.linspace(1, len(reports), 12, dtype=int):
            evidence = gather(gallery, gallery.query_of(f"{n:016d}"), max_tokens=2500)
            assert evidence.cases and token_estimate(markdown(evidence)) <= 2500
            for cited in evidence.cases:
                stored = cleaned(gallery.case(cited.case_id).report)
                quotes = quotable(cited.report.impression), quotable(cited.report.findings)
                for sentence in (s for quote in quotes for s in (*quote.impression, *quote.findings)):
                    assert sentence.strip() in stored


def test_the_estimate_is_above_a_real_tokenizers_count(reports: list[str]) -> None:
    """That of CLIP, whose 49,408 tokens were not made for medicine: it takes more of them than larger ones do."""
    tokenizer = pytest.importorskip("open_clip").tokenizer.SimpleTokenizer()
    counts = [(token_estimate(report), len(tokenizer.encode(report))) for report in reports]
    assert all(estimated >= real for estimated, real in counts)

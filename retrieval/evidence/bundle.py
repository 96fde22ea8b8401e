"""From a query to evidence: neighbours of other patients, cited, cut to a budget, with votes and provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

from retrieval.ages import age_band
from retrieval.errors import UsageError
from retrieval.evidence.budget import most_that_fit, token_estimate
from retrieval.evidence.cited import AskedWith, Budget, CitedCase, ImageRef, Provenance
from retrieval.evidence.cited import Evidence as Evidence
from retrieval.evidence.cleaning import one_line
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.quoting import Quotable, order_of_quoting, quotable, quoted
from retrieval.evidence.rates import gallery_rates
from retrieval.evidence.votes import LabelVotes, vote_table
from retrieval.filters import Filter
from retrieval.gallery import Gallery
from retrieval.intended_use import INTENDED_USE
from retrieval.types import Case, CaseKind, GroupBy, Hit, Label, Query, SamePatient, SearchResult

CASES = 8
MAX_TOKENS = 4000
MAX_IMAGES = 8
MOST_TOKENS = 1_000_000
MOST_IMAGES = 64
NAME_CHARACTERS = 120  # of a label's name or value, or of a header's word; longer ones are cut
MOST_LABELS = 32  # of one case

Refs = tuple[ImageRef, ...]


def gather(
    gallery: Gallery,
    query: Query,
    *,
    asked: AskedWith | None = None,
    k: int = CASES,
    filters: Filter | None = None,
    max_tokens: int = MAX_TOKENS,
    max_images: int = MAX_IMAGES,
    written: Callable[[Evidence], str] = markdown,
) -> Evidence:
    """The bundle for a query: up to ``k`` cases, never of the query's own patient and one of each other patient.

    ``asked``: what the query is, as told in the bundle; made of the query itself when None. ``max_tokens``: of the
    text that is ``written`` of it, estimated on the high side. ``max_images``: in all, the query's own among them.
    UsageError for a budget out of bounds or without room for the words that every bundle has.
    """
    _check("max_tokens", max_tokens, 1, MOST_TOKENS)
    _check("max_images", max_images, 0, MOST_IMAGES)
    result = gallery.search(query, k=k, filters=filters, same_patient=SamePatient.EXCLUDE, group=GroupBy.PATIENT)
    told = _told(asked or asked_with(query), query)
    names = dict.fromkeys(label.name for hit in result.hits for label in hit.case.labels if label.number is None)
    whole = Evidence(
        query=told,
        cases=tuple(_cited(hit) for hit in result.hits),
        votes=tuple(map(_clean_votes, vote_table(result.hits, gallery_rates(gallery, names)))),
        no_confident_match=result.no_confident_match,
        reasons=tuple(map(one_line, result.reasons)),
        cautions=tuple(map(one_line, result.cautions)),
        provenance=_provenance(result),
        budget=Budget(max_tokens, max_images),
        intended_use=INTENDED_USE,
    )
    reports = [quotable(hit.case.report) for hit in result.hits]
    return _within(whole, reports, [_refs(hit) for hit in result.hits], written)


def asked_with(query: Query, case: Case | None = None, *, text: str = "", warnings: Sequence[str] = ()) -> AskedWith:
    """What a query is; ``case`` is the one it was made of, when there is one, and ``text`` the sentence in it."""
    if case is not None:
        kind = case.kind.value
    else:
        kind = (
            "text"
            if query.text_weight == 1.0 and query.text is None
            else "volume"
            if len(query.frames) > 1
            else "image"
        )
    frames = len(query.frames) if kind != "text" else 0
    return AskedWith(kind, query.modality, query.body_part, frames, text, tuple(warnings))


def _told(asked: AskedWith, query: Query) -> AskedWith:
    warnings = tuple(map(one_line, asked.warnings))
    if asked.kind != "text" and not query.patient_key:
        warnings += ("The patient of the query is not known: cases of the same patient can't be told from others.",)
    return replace(
        asked,
        modality=_named(asked.modality),
        body_part=_named(asked.body_part),
        text=one_line(asked.text),
        warnings=warnings,
    )


def _cited(hit: Hit) -> CitedCase:
    case, about = hit.case, hit.case.attributes
    return CitedCase(
        number=hit.rank,
        case_id=case.case_id,
        kind=case.kind.value,
        modality=_named(about.modality),
        body_part=_named(about.body_part),
        view=_named(about.view),
        sex=_named(about.sex),
        age_band=age_band(about.age),
        labels=tuple(Label(_named(la.name), _named(la.value), la.number) for la in case.labels[:MOST_LABELS]),
        similarity=hit.similarity,
        percentile=hit.percentile,
        report=quoted(quotable(case.report), 0),
        matches=hit.matches,
        images=(),
    )


def _named(word: str) -> str:
    word = one_line(word)
    return word if len(word) <= NAME_CHARACTERS else word[: NAME_CHARACTERS - 1] + "…"


def _clean_votes(votes: LabelVotes) -> LabelVotes:
    values = tuple(replace(each, value=_named(each.value)) for each in votes.values)
    return replace(votes, label=_named(votes.label), values=values)


def _within(
    whole: Evidence, reports: Sequence[Quotable], refs: Sequence[Refs], written: Callable[[Evidence], str]
) -> Evidence:
    """As many neighbours, with their images, as have room without a report; then as many sentences as have room."""

    def tokens(evidence: Evidence) -> int:
        return token_estimate(written(evidence))

    def first(count: int) -> Evidence:
        return _with_images(_first(whole, count), refs[:count])

    most = whole.budget.max_tokens
    kept = most_that_fit(len(whole.cases), lambda n: tokens(first(n)), most)
    bare = first(kept)
    if (needed := tokens(bare)) > most:
        raise UsageError(f"max_tokens is {most}, but a bundle without any case has {needed} here: raise it.")
    order = order_of_quoting(reports[:kept])
    fitting = most_that_fit(len(order), lambda n: tokens(_quoting(bare, reports, order[:n])), most)
    cut = _quoting(bare, reports, order[:fitting])
    return replace(cut, budget=replace(cut.budget, tokens=tokens(cut)))


def _first(whole: Evidence, count: int) -> Evidence:
    left_out = len(whole.cases) - count
    return replace(whole, cases=whole.cases[:count], budget=replace(whole.budget, cases_left_out=left_out))


def _quoting(whole: Evidence, reports: Sequence[Quotable], order: Sequence[int]) -> Evidence:
    cases = tuple(
        replace(case, report=quoted(report, order.count(place)))
        for place, (case, report) in enumerate(zip(whole.cases, reports, strict=False))
    )
    return replace(whole, cases=cases)


def _with_images(evidence: Evidence, refs: Sequence[Refs]) -> Evidence:
    """One image of the query and of each case, the best ranked first, then a second one of each, and so on, while there
    is room."""
    asked = evidence.query
    own = 0 if asked.kind == "text" else max(1, asked.frames) if asked.kind == CaseKind.VIEWS else 1
    turns = [(n, -1) for n in range(own)] + [(n, place) for place, each in enumerate(refs) for n in range(len(each))]
    chosen = [place for _, place in sorted(turns)[: evidence.budget.max_images]]
    cases = tuple(replace(case, images=refs[place][: chosen.count(place)]) for place, case in enumerate(evidence.cases))
    return replace(evidence, cases=cases, budget=replace(evidence.budget, images=len(chosen)))


def _refs(hit: Hit) -> Refs:
    """The slices of a case that matched best, else its middle one; of views all, those that matched first."""
    frames = hit.case.frames
    best = {match.hit_slice: match.hit_position_mm for match in hit.matches}
    if hit.case.kind is CaseKind.VIEWS:
        best = {n: frames[n].position_mm for n in [*best, *(n for n in range(len(frames)) if n not in best)]}
    if not best and frames:
        middle = len(frames) // 2
        best = {middle: frames[middle].position_mm}
    return tuple(ImageRef(hit.case.case_id, n, position) for n, position in best.items())


def _provenance(result: SearchResult) -> Provenance:
    return Provenance(
        encoder=result.encoder,
        fingerprint=result.fingerprint,
        generation=result.generation,
        gallery_size=result.gallery_size,
        plan=result.plan,
        exhaustive=result.exhaustive,
        version=version("precedent"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _check(name: str, given: int, low: int, high: int) -> None:
    if not low <= given <= high:
        raise UsageError(f"{name} must be from {low} to {high}, got {given}.")

"""``precedent evidence`` and ``precedent answer``: similar cases for a language model, and what it makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.cli.asking import AskedCase, Text, What, asked_case, check_asked
from indexer.cli.console import BoundEncoder, Home, Json, err, print_json, settings_of
from indexer.evidence_images import filed_pictures, noted, pictures_of, query_pictures
from indexer.limits import Limits
from indexer.radfm import most_text_of, save_radfm
from indexer.radfm_blocks import placed_of
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.answers.answer import QUESTION, answer_of, answering
from retrieval.answers.checking import Sentence
from retrieval.answers.endpoint import endpoint_of
from retrieval.answers.plain import answer_json
from retrieval.encoders.text import text_encoder
from retrieval.errors import UsageError
from retrieval.evidence.bundle import CASES, MAX_IMAGES, MAX_TOKENS, asked_with, gather
from retrieval.evidence.cited import Evidence
from retrieval.evidence.formats.markdown import markdown
from retrieval.evidence.formats.messages import messages, text_of
from retrieval.evidence.formats.plain import evidence_json
from retrieval.filters import parse_text
from retrieval.gallery import Gallery
from retrieval.storage import storing


class Format(StrEnum):
    """How a bundle is written."""

    JSON = "json"
    MARKDOWN = "markdown"
    MESSAGES = "messages"
    RADFM = "radfm"


WRITTEN = {Format.MESSAGES: text_of, Format.RADFM: most_text_of}  # what max_tokens counts; else the markdown

Neighbours = Annotated[int, typer.Option("-k", "--k", help="How many neighbours, one per patient.")]
Where = Annotated[str, typer.Option("--filter", help='Such as "modality=CT,age>=40"; see docs/cli.md.')]
MaxTokens = Annotated[int, typer.Option(help="Of all its text, estimated on the high side.")]
MaxImages = Annotated[int, typer.Option(help="In all, the query's own among them.")]


@dataclass(frozen=True, slots=True)
class _Gathered:
    evidence: Evidence
    asked: AskedCase | None


def evidence(
    what: What = None,
    text: Text = "",
    format: Annotated[Format, typer.Option(help="How it is written.")] = Format.MARKDOWN,  # noqa: A002
    k: Neighbours = CASES,
    where: Where = "",
    max_tokens: MaxTokens = MAX_TOKENS,
    max_images: MaxImages = MAX_IMAGES,
    to: Annotated[Path | None, typer.Option("--out", help="Write it to this file.", show_default=False)] = None,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Similar cases of other patients, cited and cut to a budget, for a language model."""
    chosen = Format.JSON if as_json else format
    check_asked(what, text.strip(), None, None)
    if chosen is Format.RADFM and to is None:
        raise UsageError("The format radfm is two files: give --out, and .npz and .json are put to its name.")
    with Gallery.open(settings_of(home, encoder=encoder)) as gallery:
        gathered = _gather(gallery, what, text.strip(), k, where, max_tokens, max_images, WRITTEN.get(chosen, markdown))
        if chosen is Format.RADFM:
            _save_radfm(gallery, gathered, to)
            return
        written = _written(gallery, gathered, chosen)
    if to is None:
        sys.stdout.write(written)
    else:
        with storing("The bundle can't be written"):
            to.write_text(written, encoding="utf-8")


def answer(
    what: What = None,
    text: Text = "",
    question: Annotated[str, typer.Option(help="What to tell of the cases.")] = QUESTION,
    k: Neighbours = CASES,
    where: Where = "",
    max_tokens: MaxTokens = MAX_TOKENS,
    max_images: MaxImages = MAX_IMAGES,
    encoder: BoundEncoder = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """An answer by the endpoint of PRECEDENT_ANSWER_URL, every sentence of which cites cases. Off without one."""
    check_asked(what, text.strip(), None, None)
    settings = settings_of(home, encoder=encoder)
    endpoint = endpoint_of(settings)
    with Gallery.open(settings) as gallery:
        written = partial(text_of, question=question)
        gathered = _gather(gallery, what, text.strip(), k, where, max_tokens, max_images, written)
        found, told = _messages(gallery, gathered, question)
    judged = []
    for each in chain.from_iterable(answering(found, told, endpoint)):
        judged.append(each)
        if isinstance(each, Sentence) and not as_json:
            typer.echo(each.text)
    made = answer_of(found, judged, endpoint)
    if as_json:
        print_json({**answer_json(made), "evidence": evidence_json(found)})
        return
    for line in (made.refused, *made.reasons):
        if line:
            typer.echo(line)
    for gone in made.removed:
        err().print(f"removed, as {gone.fault.value}: {gone.text}", markup=False)
    if made.sent_to:
        err().print(f"Written by {made.model} at {made.sent_to}, which was sent the cases above.", markup=False)


def _gather(
    gallery: Gallery,
    what: list[str] | None,
    text: str,
    k: int,
    where: str,
    max_tokens: int,
    max_images: int,
    written: Callable[[Evidence], str],
) -> _Gathered:
    filters = parse_text(where) if where else None
    if text:  # before files are read for nothing
        text_encoder(gallery.encoder)
    asked = asked_case(gallery, what) if what else None
    query = asked.query if asked else gallery.text_query(text)
    if asked and text:
        query = gallery.with_text(query, text)
    about = asked_with(query, asked.case if asked else None, text=text, warnings=asked.warnings if asked else ())
    found = gather(
        gallery, query, asked=about, k=k, filters=filters, max_tokens=max_tokens, max_images=max_images, written=written
    )  # fmt: skip
    return _Gathered(found, asked)


def _written(gallery: Gallery, gathered: _Gathered, chosen: Format) -> str:
    if chosen is Format.MARKDOWN:
        return markdown(gathered.evidence)
    if chosen is Format.JSON:
        return json.dumps(evidence_json(gathered.evidence), indent=2, ensure_ascii=False) + "\n"
    found, told = _messages(gallery, gathered, "")
    return json.dumps({"messages": told, "notes": found.notes}, indent=2, ensure_ascii=False) + "\n"


def _save_radfm(gallery: Gallery, gathered: _Gathered, to: Path | None) -> None:
    if to is None:
        raise UsageError("The format radfm is two files: give --out.")
    found, asked = gathered.evidence, gathered.asked
    with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
        placed = placed_of(gallery, sandbox, found, asked.case if asked else None, asked.images if asked else ())
    gone = list(dict.fromkeys(each.of for each in placed if each.frames.thumbnail))
    with storing("The bundle can't be written"):
        save_radfm(noted(found, gone), placed, to)


def _messages(gallery: Gallery, gathered: _Gathered, question: str) -> tuple[Evidence, list[dict[str, Any]]]:
    asked = gathered.asked
    with Sandbox(worker_count(gallery.settings), Limits.of(gallery.settings)) as sandbox:
        found, pictures = pictures_of(gallery, sandbox, gathered.evidence)
        own = query_pictures(asked.images, asked.case.kind, found.own_images) if asked else []
        if asked and not own:
            own = filed_pictures(gallery, sandbox, asked.case, found.own_images)
    return found, messages(found, pictures, own, question)

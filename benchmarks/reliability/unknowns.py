"""Does a search say "I don't know" to what the gallery does not hold, and only to that?

    python -m benchmarks.reliability.unknowns [--sets FOLDER] [--photographs FOLDER] [--encoder compact]
                                              [--home FOLDER] [--most 100] [--seed 0]

Galleries are made of the train parts of the labelled sets: of all of them, of each alone, and of all but one. They are
asked for test pictures, of other patients, with and without saying their modality; for pictures of modalities that
they do not hold; and for noise, patterns, pages, drawings and photographs (``strangers``). Pictures go through the
ordinary indexing pipeline, and what is asked is ``Gallery.search``. Of a set whose labels the encoder was fitted to
(``--fitted``), the train part lies closer together than any new picture will: of such a set the gallery gets two thirds
of the test patients instead, and is asked for the others. What becomes of it with the train part is told apart.

Promised: of what a gallery holds, at most 5 % is called no confident match; of what it does not hold, at least 95 %.
Which figures are compared, and to how many neighbours, was chosen on train parts and on the kinds marked "chosen on".
Apart and not counted: other sets of a modality that the gallery holds, which may well be like its own, and radiographs
upside down. A gallery of too few patients is to say so, with every answer. Exits 1 when short.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.evaluate_sets import default_sets
from benchmarks.reliability.strangers import CHOOSING, REPORTED, crop, photographs
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.encoders.base import Encoder
from retrieval.evidence.modalities import kind_of
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, EmbeddedCase, Embedding, Query

OF_A_KIND = 30  # strangers of each kind
FALSE, FOUND = 0.05, 0.95
FITTED = ("cxr_kermany", "cxr_nih", "xray_knee_kl")  # see docs/compact.md
TURNED = "upside down"
TURNED_SET = "cxr_nih"
FEW = "Too few patients"


@dataclass(frozen=True, slots=True)
class Picture:
    """``kind``: the set it is of, or what sort of stranger it is."""

    kind: str
    part: str  # "train", "test", or "" for strangers
    case: Case
    embedding: Embedding


@dataclass(slots=True)
class Tally:
    """Answers to pictures of one kind."""

    asked: int = 0
    refused: int = 0
    unsure: int = 0  # told that there are too few patients

    @property
    def share(self) -> float:
        return self.refused / max(1, self.asked)


@dataclass(slots=True)
class Told:
    """Of one gallery, by kind."""

    name: str
    own: dict[str, Tally] = field(default_factory=dict)
    own_with_header: dict[str, Tally] = field(default_factory=dict)
    strange: dict[str, Tally] = field(default_factory=dict)
    apart: dict[str, Tally] = field(default_factory=dict)

    @property
    def tells(self) -> bool:
        """Whether there are patients enough for any picture to be refused for being far."""
        return not any(tally.unsure for tally in self.own.values())


def draw_strangers(folder: Path, sets: Path, own: Path | None, seed: int) -> list[Path]:
    """A folder of pictures for each kind of stranger."""
    made: list[Path] = []

    def save(kind: str, number: int, picture: Image.Image) -> None:
        if not (target := folder / kind).is_dir():
            target.mkdir(parents=True)
            made.append(target)
        picture.save(target / f"{number:03d}.png")

    for kind, draw in {**CHOOSING, **REPORTED}.items():
        rng = np.random.default_rng([seed, len(made)])
        for number in range(OF_A_KIND):
            save(kind, number, draw(rng))
    shots = list(photographs(own))
    for kind in dict.fromkeys(name for name, _ in shots):
        same = [picture for name, picture in shots if name == kind]
        rng = np.random.default_rng([seed, len(made)])
        for number in range(max(OF_A_KIND, 4 * len(same) * (len(same) > 1))):
            cut = crop(same[number % len(same)], rng)
            save(kind, number, cut.convert("L") if number % 2 else cut)
    with (sets / TURNED_SET / "labels.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "test"]
    for number, row in enumerate(rows[:OF_A_KIND]):
        with Image.open(sets / TURNED_SET / row["path"]) as picture:
            save(TURNED, number, picture.rotate(180))
    return made


def embed(home: Path, sets: Path, strangers: Sequence[Path], encoder: str) -> tuple[Encoder, list[Picture]]:
    """All pictures, embedded by indexing them; what is in ``home`` already is not embedded again."""
    settings = Settings(home=home, encoder=encoder)
    workers = worker_count(settings)
    with Gallery.open(settings, create=True) as gallery, Sandbox(workers, Limits.of(settings)) as sandbox:
        for table in sorted(sets.glob("*/labels.csv")):
            index(gallery, sandbox, [table.parent], Options(LabelTable.read(table), source=table.parent.name))
        for folder in strangers:
            index(gallery, sandbox, [folder], Options(source=folder.name))
        return gallery.encoder, list(_pictures(gallery))


def _pictures(gallery: Gallery) -> Iterator[Picture]:
    for keys, vectors in gallery.catalog.vectors(0):
        for case, vector in zip(gallery.catalog.cases(keys).values(), vectors, strict=True):
            part = next((label.value for label in case.labels if label.name == "split"), "")
            yield Picture(case.attributes.source, part, case, Embedding(vector, vector[None, :], (0,)))


def moved(pictures: Sequence[Picture], fitted: Sequence[str]) -> list[Picture]:
    """Of the sets ``fitted``, without the train part, two thirds of the test patients in its place."""
    kept = [each for each in pictures if each.kind not in fitted or each.part == "test"]
    return [
        replace(each, part="train") if each.kind in fitted and int(each.case.patient_key[:8], 16) % 3 else each
        for each in kept
    ]


@contextmanager
def gallery_of(pictures: Sequence[Picture], encoder: Encoder) -> Iterator[Gallery]:
    with tempfile.TemporaryDirectory(prefix="precedent-unknowns-") as home:
        settings = Settings(home=Path(home), encoder=encoder.card.spec)
        with Gallery.open(settings, create=True, encoder=encoder) as gallery:
            gallery.add([EmbeddedCase(replace(each.case, key=0, duplicate_of=""), each.embedding) for each in pictures])
            gallery.warm_up()  # as a service does
            yield gallery


def ask(gallery: Gallery, pictures: Sequence[Picture], *, with_header: bool = False) -> Tally:
    """Ask for each picture, as of its patient, and count."""
    tally = Tally()
    for picture in pictures:
        query = Query(picture.embedding, picture.case.patient_key, study_uid=picture.case.study_uid)
        if with_header:
            told = picture.case.attributes
            query = replace(query, modality=told.modality, body_part=told.body_part)
        found = gallery.search(query)
        tally.asked += 1
        tally.refused += found.no_confident_match
        tally.unsure += any(caution.startswith(FEW) for caution in found.cautions)
    return tally


def examine(name: str, own: Sequence[str], pictures: Sequence[Picture], encoder: Encoder, most: int, seed: int) -> Told:
    """A gallery of the train parts of the sets ``own``, asked for at most ``most`` pictures of each kind."""
    rng = np.random.default_rng(seed)
    held = [each for each in pictures if each.kind in own and each.part == "train"]
    modalities = {kind_of(each.case.attributes.modality) for each in held}
    told = Told(name)
    with gallery_of(held, encoder) as gallery:
        for kind in sorted({each.kind for each in pictures}):
            some = [each for each in pictures if each.kind == kind and each.part in {"test", ""}]
            some = [some[n] for n in sorted(rng.permutation(len(some))[:most])]
            if kind in own:
                told.own[kind] = ask(gallery, some)
                told.own_with_header[kind] = ask(gallery, some, with_header=True)
            elif kind == TURNED or modalities & {kind_of(each.case.attributes.modality) for each in some}:
                told.apart[kind] = ask(gallery, some)
            else:
                told.strange[kind] = ask(gallery, some)
    return told


def pooled(galleries: Sequence[Told]) -> str:
    """Over all pictures asked of all galleries that have enough patients to tell."""
    able = [told for told in galleries if told.tells]

    def share(tallies: Iterable[Tally]) -> str:
        each = list(tallies)
        refused, asked = sum(tally.refused for tally in each), sum(tally.asked for tally in each)
        return f"{refused} of {asked} ({refused / max(1, asked):.1%})"

    own = share(tally for told in able for tally in told.own.values())
    with_header = share(tally for told in able for tally in told.own_with_header.values())
    strange = share(tally for told in able for tally in told.strange.values())
    return (
        f"pooled over the {len(able)} of {len(galleries)} galleries that can tell: of their own kinds refused {own}, "
        f"with their modality said {with_header}; of others {strange}"
    )


def tell(told: Told) -> bool:
    """Print it; whether it is as promised."""
    unsure = sum(tally.unsure for tally in told.own.values())
    if unsure:
        asked = sum(tally.asked for tally in told.own.values())
        print(f"{told.name}: too few patients to tell, and says so with {unsure} of {asked} answers", flush=True)
        return unsure == asked
    false, with_header = (
        sum(tally.refused for tally in each.values()) / sum(tally.asked for tally in each.values())
        for each in (told.own, told.own_with_header)
    )
    found = float(np.mean([tally.share for tally in told.strange.values()]))
    good = false <= FALSE and with_header <= FALSE and found >= FOUND
    print(
        f"{told.name}: of its own kinds refused {false:.1%} ({with_header:.1%} with their modality said), of "
        f"{len(told.strange)} others {found:.1%}{'' if good else ' - NOT AS PROMISED'}",
        flush=True,
    )
    if worst := [f"{kind} {tally.share:.0%}" for kind, tally in told.own.items() if tally.share > FALSE]:
        print(f"  of its own, more than {FALSE:.0%}: {', '.join(worst)}")
    if missed := [f"{kind} {tally.share:.0%}" for kind, tally in told.strange.items() if tally.share < FOUND]:
        print(f"  of others, less than {FOUND:.0%}: {', '.join(missed)}")
    if told.apart:
        print(f"  apart: {', '.join(f'{kind} {tally.share:.0%}' for kind, tally in told.apart.items())}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=default_sets())
    parser.add_argument("--photographs", type=Path, default=None, help="a folder of more photographs")
    parser.add_argument("--encoder", default=str(Settings.model_fields["encoder"].default))
    parser.add_argument("--fitted", nargs="*", default=list(FITTED), help="sets whose labels the encoder was fitted to")
    parser.add_argument("--home", type=Path, default=None, help="where embedded pictures are kept for another run")
    parser.add_argument("--most", type=int, default=100, help="pictures of a kind that a gallery is asked for")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="precedent-unknowns-") as folder:
        strangers = draw_strangers(Path(folder) / "strangers", asked.sets, asked.photographs, asked.seed)
        home = asked.home or Path(folder) / "home"
        encoder, pictures = embed(home, asked.sets, strangers, asked.encoder)
    sets = sorted(table.parent.name for table in asked.sets.glob("*/labels.csv"))
    print(f"{len(pictures)} pictures; chosen on: {', '.join(CHOOSING)}, photograph china", flush=True)
    galleries = {"all sets": sets} | {name: [name] for name in sets}
    galleries |= {f"all but {name}": [other for other in sets if other != name] for name in sets}
    fair = moved(pictures, asked.fitted)
    examined, short = [], []
    for name, own in galleries.items():
        examined.append(examine(name, own, fair, encoder, asked.most, asked.seed))
        if not tell(examined[-1]):
            short.append(name)
    for name in asked.fitted:
        share = examine(name, [name], pictures, encoder, asked.most, asked.seed).own[name].share
        print(f"apart: {name} with the train part, which the encoder was fitted to: refused {share:.1%}")
    print(pooled(examined))
    print(f"as promised: {len(galleries) - len(short)} of {len(galleries)}; short: {', '.join(short) or 'none'}")
    return int(bool(short))


if __name__ == "__main__":
    raise SystemExit(main())

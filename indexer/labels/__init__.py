"""A labels file: what a table says of files and studies, looked up by path or UID while they are indexed."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from indexer.labels.columns import PATH, UIDS, Columns, attributes_of, label_values, labels_of, number, understand
from indexer.labels.files import RawTable, Row, open_table
from retrieval.errors import UsageError
from retrieval.types import Attributes, Label


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What one row says. ``patient_id`` and ``study_id`` are raw: make them pseudonyms at once, never store them."""

    line: int
    patient_id: str = ""
    study_id: str = ""
    report: str = ""
    attributes: Attributes = field(default_factory=Attributes)
    labels: tuple[Label, ...] = ()

    def over(self, attributes: Attributes) -> Attributes:
        """``attributes`` with every value that this row states put in its place."""
        unknown = Attributes()
        stated = {
            f.name: getattr(self.attributes, f.name)
            for f in fields(Attributes)
            if getattr(self.attributes, f.name) != getattr(unknown, f.name)
        }
        return replace(attributes, **stated)


@dataclass(frozen=True, slots=True)
class UnmatchedRow:
    """A row that met no file: its line, and the path or UID it names."""

    line: int
    names: str


class LabelTable:
    """The rows of one labels file, found by path (the file, then the folders around it) or by UID (finest first).

    Relative paths start at the folder of the table. Rows are kept as shared strings and become ``RowFacts`` when
    they are matched, so a table of millions of rows stays within its own size.
    """

    def __init__(self, path: Path, columns: Columns, rows: list[Row], numeric: frozenset[str]) -> None:
        self.path = path
        self._columns = columns
        self._rows = rows
        self._numeric = numeric
        self._folder = os.path.normpath(path.parent.absolute())
        self._real_folder = os.path.realpath(path.parent)
        self._by_path: dict[str, int] = {}
        self._by_uid: dict[str, int] = {}
        self._matched: set[int] = set()
        self._file_rows()

    @classmethod
    def read(cls, path: Path) -> LabelTable:
        """Read a .csv or .parquet table and check all of it, so that a mistake is told before anything is indexed."""
        raw = open_table(path)
        columns = understand(raw.header, path.name)
        rows, numeric = _collect(raw, columns, path.name)
        return cls(path, columns, rows, numeric)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The columns that became labels, in the order of the table."""
        return tuple(name for name, _ in self._columns.labels)

    def rows(self) -> Iterator[tuple[Path | None, RowFacts]]:
        """Each row with where it points (absolute; None when it names only a UID), in the order of the table."""
        for row in self._rows:
            text = self._columns.cell(row.cells, PATH)
            yield Path(self._absolute(text)) if text else None, self._facts(row)

    def match(self, path: Path, study_uid: str = "", series_uid: str = "", sop_uid: str = "") -> RowFacts | None:
        """The row of a file: by its path or the nearest folder above it, else by SOP, series or study instance UID."""
        found = self._find(path, (sop_uid, series_uid, study_uid))
        if found is None:
            return None
        self._matched.add(found)
        return self._facts(self._rows[found])

    def unmatched(self) -> tuple[UnmatchedRow, ...]:
        """The rows that no ``match`` has met so far, in the order of the table."""
        return tuple(
            UnmatchedRow(row.line, self._columns.cell(row.cells, PATH) or self._finest_uid(row))
            for number_, row in enumerate(self._rows)
            if number_ not in self._matched
        )

    def _facts(self, row: Row) -> RowFacts:
        cell = self._columns.cell
        return RowFacts(
            line=row.line,
            patient_id=cell(row.cells, "patient_id"),
            study_id=cell(row.cells, "study_id"),
            report=cell(row.cells, "report"),
            attributes=attributes_of(row.cells, self._columns, row.line, self.path.name),
            labels=labels_of(row.cells, self._columns, self._numeric),
        )

    def _file_rows(self) -> None:
        shared: set[str] = set()
        for index, row in enumerate(self._rows):
            text, uid = self._columns.cell(row.cells, PATH), self._finest_uid(row)
            if not text and not uid:
                raise UsageError(f"Line {row.line} of {self.path.name} names neither a path nor a UID.")
            if text and (first := self._by_path.setdefault(_norm(self._absolute(text)), index)) != index:
                raise self._twice(first, row, "path")
            if uid and (first := self._by_uid.setdefault(uid, index)) != index:
                if not text:
                    raise self._twice(first, row, "UID")
                shared.add(uid)  # told apart by path alone
        for uid in shared:
            del self._by_uid[uid]

    def _twice(self, first: int, row: Row, what: str) -> UsageError:
        return UsageError(
            f"Lines {self._rows[first].line} and {row.line} of {self.path.name} name the same {what}: "
            "keep one row each; several values of a label go into one cell, separated by '|'."
        )

    def _finest_uid(self, row: Row) -> str:
        return next((uid for name in UIDS if (uid := self._columns.cell(row.cells, name))), "")

    def _absolute(self, text: str) -> str:
        text = text.replace("\\", "/") if os.sep == "/" else text  # tables made on Windows
        return os.path.normpath(Path(self._real_folder, text))

    def _find(self, path: Path, uids: tuple[str, ...]) -> int | None:
        for spelling in self._spellings(path):
            here = Path(_norm(spelling))
            for place in (here, *here.parents):
                if (found := self._by_path.get(str(place))) is not None:
                    return found
        return next((self._by_uid[uid] for uid in uids if uid and uid in self._by_uid), None)

    def _spellings(self, path: Path) -> Iterator[str]:
        """The path as given, seen from the real folder of the table, and with every link followed."""
        absolute = os.path.normpath(path.absolute())
        if absolute.startswith(self._folder + os.sep):
            yield self._real_folder + absolute[len(self._folder) :]
        yield absolute
        yield os.path.realpath(path)


def _norm(path: str) -> str:
    """macOS writes file names decomposed, tables rarely are."""
    return unicodedata.normalize("NFC", path)


def _collect(raw: RawTable, columns: Columns, table: str) -> tuple[list[Row], frozenset[str]]:
    """All rows, equal cells shared, and the label columns where every value is a number (and there is one)."""
    pool: dict[str, str] = {}
    rows: list[Row] = []
    numeric = {name for name, _ in columns.labels}
    seen: set[str] = set()
    for row in raw.rows:
        attributes_of(row.cells, columns, row.line, table)
        for name, index in columns.labels:
            values = label_values(row.cells[index])
            if values:
                seen.add(name)
            if name in numeric and any(number(value) is None for value in values):
                numeric.discard(name)
        rows.append(Row(row.line, tuple(pool.setdefault(cell, cell) for cell in row.cells)))
    return rows, frozenset(numeric & seen)

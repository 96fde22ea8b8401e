"""Rows of text out of a .csv or .parquet file, one at a time; ``indexer.labels.columns`` knows what they mean."""

from __future__ import annotations

import codecs
import csv
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from retrieval.errors import UsageError

BLOCK_BYTES = 1 << 20
DELIMITERS = ",;\t"
SEPARATOR = "|"  # between several values of one cell
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: the line it starts on (CSV) or its number (Parquet), both from 1, and one text per column."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawTable:
    """A header and the rows under it; ``rows`` can be walked once."""

    header: tuple[str, ...]
    rows: Iterator[Row]


def open_table(path: Path) -> RawTable:
    """The table at ``path``, its rows read as they are asked for. A ``UsageError`` says what can't be read."""
    if not path.is_file():
        raise UsageError(f"Expected a labels file at {path}, but there is no such file.")
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv", ".txt"}:
        return _open_csv(path)
    if suffix in {".parquet", ".pq"}:
        return _open_parquet(path)
    raise UsageError(f"Expected a .csv or .parquet labels file, got {path.name}: save the table as one of these.")


def _open_csv(path: Path) -> RawTable:
    encoding = _encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as file:
            first = file.readline()
    except UnicodeError as error:
        raise _not_text(path) from error
    delimiter = max(DELIMITERS, key=first.count)  # a comma when none occurs: a table of one column
    rows = _csv_rows(path, encoding, delimiter)
    header = next(rows, None)
    if header is None:
        raise UsageError(f"The labels file {path.name} is empty: expected a header line with a path or UID column.")
    return RawTable(tuple(cell.strip() for cell in header.cells), _of_width(rows, len(header.cells), path.name))


def _encoding(path: Path) -> str:
    """What the bytes say: a byte order mark, else valid UTF-8, else Windows-1252, which older Excel writes."""
    with path.open("rb") as file:
        head = file.read(4)
        for mark, name in _BYTE_ORDER_MARKS:
            if head.startswith(mark):
                return name
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block := file.read(BLOCK_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    with path.open(encoding=encoding, newline="") as file:
        try:
            yield from _parsed(file, delimiter)
        except csv.Error as error:
            raise UsageError(f"The labels file {path.name} is not valid CSV: {error}.") from error
        except UnicodeError as error:
            raise _not_text(path) from error


def _not_text(path: Path) -> UsageError:
    return UsageError(f"The labels file {path.name} is neither UTF-8, UTF-16 nor Windows-1252 text: save it as UTF-8.")


def _parsed(file: TextIO, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    start = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield Row(start, tuple(cells))
        start = reader.line_num + 1


def _of_width(rows: Iterator[Row], width: int, name: str) -> Iterator[Row]:
    for row in rows:
        if len(row.cells) != width:
            raise UsageError(
                f"Line {row.line} of {name} has {len(row.cells)} values, the header has {width}: "
                "quote values that contain the delimiter."
            )
        yield row


def _open_parquet(path: Path) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"The labels file {path.name} can't be read as Parquet: it is damaged or of another kind."
        ) from error
    return RawTable(tuple(column.strip() for column in file.schema_arrow.names), _parquet_rows(file, path.name))


def _parquet_rows(file: Any, name: str) -> Iterator[Row]:
    line = 0
    for batch in file.iter_batches():
        names = batch.schema.names
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            line += 1
            yield Row(line, tuple(_text(value, column, name) for column, value in zip(names, values, strict=True)))


def _text(value: Any, column: str, name: str) -> str:
    """One Parquet value as it would stand in a CSV; a list becomes several values."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return SEPARATOR.join(_text(part, column, name) for part in value)
    raise UsageError(
        f"The column '{column}' of {name} holds {type(value).__name__} values: "
        "expected text, numbers, dates or lists of these."
    )

"""Reading values of a pydicom data set without trusting them: absent, empty and malformed all come back as nothing."""

from __future__ import annotations

import functools
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

# What pydicom raises for values it can't read; NotImplementedError for a VR that it does not know. Not RuntimeError:
# that would take RecursionError along, which must reach the limits.
_MALFORMED = (
    ArithmeticError, AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
# Of the default repertoire (PS3.5 6.2): read as they stand, which takes a third of the time.
_CODES = frozenset({"AE", "AS", "CS", "DA", "DS", "IS", "TM", "UI"})
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings and log lines: they quote values, and values can be patient data."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def value(header: Dataset, keyword: str) -> Any:
    """The element's value, or None."""
    return value_at(header, _tag(keyword))


def value_at(header: Dataset, tag: int) -> Any:
    """As ``value``, of an element by its tag: private ones have no keyword."""
    if tag not in header:
        return None
    try:
        return header[tag].value
    except _MALFORMED:
        return None


@functools.cache
def _tag(keyword: str) -> BaseTag:
    """Of a keyword of the standard: looking it up by name for each value takes longer than reading the value."""
    return Tag(keyword)


def texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as stripped strings, empty ones included; () when absent."""
    element = header.get_item(_tag(keyword)) if _tag(keyword) in header else None
    if isinstance(element, RawDataElement) and element.value:
        if element.VR in _CODES and element.value.isascii():
            return tuple(each.replace("\x00", " ").strip() for each in element.value.decode("ascii").split("\\"))
        if element.VR == "US" and len(element.value) == 2:
            return (str(int.from_bytes(element.value, "little" if element.is_little_endian else "big")),)
    found = value(header, keyword)
    if found is None or isinstance(found, bytes):
        return ()
    several = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    return tuple(str(each).replace("\x00", " ").strip() for each in several)


def text(header: Dataset, keyword: str) -> str:
    """The first value as a stripped string, or ""."""
    return next(iter(texts(header, keyword)), "")


def uid(header: Dataset, keyword: str) -> str:
    """A well-formed UID of at most 64 characters (PS3.5 9.1), or ""."""
    found = text(header, keyword)
    return found if len(found) <= 64 and _UID.match(found) else ""


def uid_name(uid: str) -> str:
    """The standard's name of a UID, the UID itself when it has none, or that it is malformed: never free text."""
    if len(uid) > 64 or not _UID.match(uid):
        return "a malformed UID"
    return str(UID(uid, validation_mode=config.IGNORE).name)


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """All values as finite floats; () when absent or when any is not a finite number."""
    found = []
    for each in texts(header, keyword):
        try:
            number = float(each)
        except ValueError:
            return ()
        if not math.isfinite(number):
            return ()
        found.append(number)
    return tuple(found)


def number(header: Dataset, keyword: str) -> float | None:
    return next(iter(numbers(header, keyword)), None)


def integer(header: Dataset, keyword: str) -> int | None:
    found = number(header, keyword)
    return int(found) if found is not None and found.is_integer() else None


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, [] when absent or not a sequence."""
    found = value(header, keyword)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    return [each for each in found if isinstance(each, Dataset)]


def item(header: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    return next(iter(items(header, keyword)), None)

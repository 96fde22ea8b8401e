"""Pure: server-sent events from the bytes of a reply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def events(chunks: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The name and the data of each event that is whole; one that broke off is left out.

    Lines end at newlines alone: text may hold other signs that Python takes for the end of a line.
    """
    name, data = "", list[str]()
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r").decode() for line in whole)

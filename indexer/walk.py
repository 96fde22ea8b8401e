"""Which sources lie under the paths a user names: files, folders and the members of zips, in a fixed order.

Only names and a few first bytes are looked at. What is not an image is told later, by its content; nothing is unpacked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from indexer.limits import Limits
from indexer.readers.bytes import ZIP, open_archive
from indexer.sources import Source
from retrieval.errors import NotFoundError, RejectedInput

_MOST_NAME = 255  # bytes of one part of a member's name


def walk(paths: Sequence[Path], limits: Limits | None = None) -> Iterator[Source]:
    """Every source under ``paths``, sorted by name within each folder; the same file named twice comes once.

    Left out: hidden files and folders, DICOMDIR, __MACOSX, links that lead out of the folder they were found in, links
    to folders. A zip is told by its bytes; one whose directory can't be read comes as one source, to be refused with a
    reason when it is scanned. NotFoundError when a named path does not exist.
    """
    bounds = limits or Limits()
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"{path} does not exist: name a file, a folder or a zip.")
    for path in _distinct(paths):
        # What a user names is meant, be it hidden or a link; what is merely found has to pass the rules.
        for found in _folder(path) if path.is_dir() else iter((path,)):
            yield from _opened(found, bounds)


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Without repetitions and without what lies in another of the folders."""
    places: dict[Path, Path] = {}
    for path in paths:
        places.setdefault(path.absolute(), path)
    return [path for place, path in places.items() if not any(parent in places for parent in place.parents)]


def _folder(folder: Path) -> Iterator[Path]:
    """Depth first, without recursion: a hostile tree may be thousands of folders deep."""
    root = folder.resolve()
    pending = [folder]
    while pending:
        path = pending.pop()
        if os.path.islink(path) and path != folder:  # noqa: PTH114 - as below
            if _stays_inside(path, root):
                yield path
        elif os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises in a folder that may not be entered
            try:
                names = sorted((entry.name for entry in path.iterdir()), reverse=True)
            except OSError:
                yield path  # it can't be listed: it comes as a source, to be refused with a reason
                continue
            pending.extend(path / name for name in names if not _skipped(name))
        else:
            yield path


def _skipped(name: str) -> bool:
    return name.startswith(".") or name.upper() == "DICOMDIR" or name == "__MACOSX"


def _stays_inside(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # dangling, or a loop
        return False
    return target.is_relative_to(root) and not target.is_dir()


def _opened(path: Path, limits: Limits) -> Iterator[Source]:
    """The file itself, or the members of a zip."""
    if not _is_zip(path):
        yield Source(path)
        return
    try:
        members = sorted(info.filename for info in open_archive(path, limits).infolist() if not info.is_dir())
    except RejectedInput:
        yield Source(path)
        return
    for member in dict.fromkeys(members):
        if _usable(member):
            yield Source(path, member)


def _is_zip(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.read(descriptor, 4) in ZIP
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _usable(member: str) -> bool:
    """False for what no honest archive holds, and for what is skipped in folders too.

    Member names are keys into the archive and never become paths; a name that tries to be one marks a hostile archive's
    member, which is left alone.
    """
    parts = member.split("/")
    hostile = (
        member.startswith("/")
        or any(sign in member for sign in ("\\", "\x00"))
        or ".." in parts
        or (len(member) > 1 and member[1] == ":")
        or any(len(part.encode(errors="surrogatepass")) > _MOST_NAME for part in parts)
    )
    return not hostile and not any(_skipped(part) for part in parts)

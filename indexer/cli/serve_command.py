"""``precedent serve``: the page and the HTTP service."""

from __future__ import annotations

import ipaddress
import socket
from importlib.metadata import entry_points
from typing import Annotated

import typer

from indexer.cli.console import Home, err, settings_of
from retrieval.access import AccessKeys
from retrieval.catalog import Catalog
from retrieval.errors import UsageError
from retrieval.settings import Settings
from retrieval.storage import make_directory, storing


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default 8000).")] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder of a gallery that does not exist yet.")] = None,
    home: Home = None,
) -> None:
    """Serve the gallery: the page at /, the service under /v1. Loopback only, unless access keys exist."""
    start(settings_of(home, host=host, port=port, encoder=encoder))


def start(settings: Settings) -> None:
    """Serve until Ctrl-C; where there is no gallery yet, an empty one to upload to."""
    with storing("The data directory can't be made"):
        make_directory(settings.home)
    with Catalog.open(settings.url, create=True) as catalog:
        if not is_loopback(settings.host) and not _has_keys(catalog):
            raise UsageError(
                f"Refusing to listen on {settings.host} without access keys: anyone on the network could read the "
                "gallery. Make a key first (precedent keys create NAME --scope read), or keep to 127.0.0.1."
            )
    _check_free(settings.host, settings.port)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    err().print(f"Precedent is at http://{shown}:{settings.port} (Ctrl-C stops it).", markup=False)
    (http,) = entry_points(group="precedent.services", name="http")  # built upon the indexer, so not imported by it
    http.load()(settings)


def _check_free(host: str, port: int) -> None:
    """UsageError when nothing can listen there, before an address is promised."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
            probe.bind(address)
    except OSError as error:
        raise UsageError(
            f"Can't listen on {host}, port {port}: {error.strerror}. "
            "Choose another with --port or --host, or stop what listens there."
        ) from error


def _has_keys(catalog: Catalog) -> bool:
    return any(not key.revoked_at for key in AccessKeys(catalog.database).list_keys())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

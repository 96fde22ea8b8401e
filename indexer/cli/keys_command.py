"""``precedent keys``: who may use the service from elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from indexer.cli.console import Home, Json, out, print_json, settings_of
from retrieval.access import AccessKeys, Scope
from retrieval.catalog import Catalog
from retrieval.storage import make_directory, storing

keys = typer.Typer(help="Access keys of the HTTP service.", no_args_is_help=True)


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[Scope, typer.Option(help="What it may do.")] = Scope.READ,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its token once. From then on every request needs one."""
    settings = settings_of(home)
    with storing("The data directory can't be made"):
        make_directory(settings.home)
    with Catalog.open(settings.url, create=True) as catalog:  # a key comes before a service that others can reach
        token = AccessKeys(catalog.database).create_key(name, scope)
    if as_json:
        print_json({"name": name, "scope": scope.value, "token": token})
    else:
        out().print(f"{token}\nSend it as 'Authorization: Bearer TOKEN'. It can't be shown again.", markup=False)


@keys.command("list")
def list_(home: Home = None, as_json: Json = False) -> None:
    """List keys, never their tokens."""
    with Catalog.open(settings_of(home).url) as catalog:
        found = AccessKeys(catalog.database).list_keys()
    if as_json:
        print_json([asdict(key) for key in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "scope", "created", "revoked"):
        table.add_column(column)
    for key in found:
        table.add_row(key.name, key.scope.value, key.created_at, key.revoked_at)
    out().print(table)


@keys.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Whose key to stop.")], home: Home = None) -> None:
    """Stop a key from working, at once and for good."""
    with Catalog.open(settings_of(home).url) as catalog:
        AccessKeys(catalog.database).revoke(name)
    out().print(f"The key of {name} no longer works.", markup=False)

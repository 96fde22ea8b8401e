"""Who may do what. Without keys in the store only this machine is served, and it may do everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.guards import is_loopback
from api.problems import Problem
from api.service import Service
from retrieval.access import AccessKeys, Scope

_bearer = HTTPBearer(auto_error=False, description="needed as soon as the store has API keys (precedent keys create)")


@dataclass(frozen=True, slots=True)
class Caller:
    """An admitted caller with the open service."""

    scope: Scope
    service: Service

    @property
    def may_see_keys(self) -> bool:
        """Whether patients' pseudonyms are shown to this caller."""
        return self.scope is not Scope.READ


def service_of(request: Request) -> Service:
    """The open service; a StoreError says why there is none."""
    service: Service = request.app.state.opening.service()
    return service


def admitted(needed: Scope) -> Callable[..., Caller]:
    """A dependency: the caller, or a 401 or 403 problem. An admin may write, a writer may read."""

    def admit(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Caller:
        service = service_of(request)
        scope = _scope_of(request, service, given.credentials if given else "")
        if not scope.allows(needed):
            raise Problem(403, f"This key has the scope '{scope}'; the request needs '{needed}'.")
        return Caller(scope, service)

    return admit


def _scope_of(request: Request, service: Service, token: str) -> Scope:
    challenge = {"WWW-Authenticate": 'Bearer realm="precedent"'}
    keys = AccessKeys(service.gallery.catalog.database)
    scope = keys.check(token) if token else None
    if scope is not None:
        return scope
    if keys.exist():  # a revoked key still counts: revoking the last one must not open the doors
        detail = "Send a valid API key as 'Authorization: Bearer KEY'; 'precedent keys create' makes one."
        raise Problem(401, detail, headers=challenge)
    if not is_loopback(request.app.state.settings.host):
        detail = "This service is open to the network and has no API keys: make one with 'precedent keys create'."
        raise Problem(401, detail, headers=challenge)
    return Scope.ADMIN


Reader = Annotated[Caller, Depends(admitted(Scope.READ))]
Writer = Annotated[Caller, Depends(admitted(Scope.WRITE))]
Admin = Annotated[Caller, Depends(admitted(Scope.ADMIN))]

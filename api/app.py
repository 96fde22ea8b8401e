"""The service: ``create_app(settings)`` puts the parts together, ``from_environment`` is what uvicorn is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.guards import LOOPBACK, BodyLimit, Envelope, SameSite, is_loopback
from api.head import HeadAsGet
from api.mcp import ToolTransport
from api.problems import on_os_error, on_precedent_error, on_problem, on_validation
from api.routes import cases, contract, evidence, gallery, health, judging, mcp, patients, rebuilds, search
from api.routes.page import add_page
from api.routes.parameters import only_declared
from api.schemas import INTENDED_USE, ProblemBody
from api.service import Opening
from retrieval.errors import PrecedentError
from retrieval.settings import Settings


def from_environment() -> FastAPI:
    """The app of the ``PRECEDENT_*`` environment: ``uvicorn --factory api.app:from_environment``."""
    return create_app(Settings())


def create_app(settings: Settings) -> FastAPI:
    """The app of one data directory. Nothing is opened before the server starts it."""
    app = FastAPI(
        title="Precedent",
        version=version("precedent"),
        description=f"Similar-case retrieval for medical imaging. {INTENDED_USE}",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.opening = opening = Opening(settings)
    app.state.metrics = opening.metrics
    app.state.mcp = ToolTransport(opening, settings)
    _add_guards(app, settings)
    _add_handlers(app)
    for module in (search, judging, evidence, cases, patients, gallery, rebuilds, contract, mcp):
        app.include_router(module.router, dependencies=[Depends(only_declared)])
    app.include_router(health.router)
    app.include_router(contract.health)
    add_page(app)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI description: every route's problems have one schema, which no route returns as a model."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = plain()["components"]["schemas"]
            own = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= own.pop("$defs", {}) | {"ProblemBody": own}
        return plain()

    app.openapi = described  # type: ignore[method-assign]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    opening: Opening = app.state.opening
    await to_thread.run_sync(opening.attempt)
    try:
        async with app.state.mcp.running():
            yield
    finally:
        await to_thread.run_sync(opening.close)


def _add_guards(app: FastAPI, settings: Settings) -> None:
    """Added innermost first: a request meets them from the last to the first."""
    app.add_middleware(BodyLimit, limit=settings.max_upload_mb << 20, large=contract.LARGE_BODIES)
    hosts = LOOPBACK | {settings.host} if is_loopback(settings.host) else frozenset()
    app.add_middleware(SameSite, hosts=hosts)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Envelope, metrics=app.state.metrics)


def _add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(PrecedentError, on_precedent_error)
    app.add_exception_handler(OSError, on_os_error)

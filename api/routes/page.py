"""The page at ``/`` and its modules: files of the package, read once when the app is made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import FastAPI, Request, Response

FOLDER = Path(__file__).resolve().parent.parent / "page"
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add_page(app: FastAPI) -> None:
    """Serve the page: ``/`` and ``/page/NAME`` for each file of the folder, no other path."""
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in MEDIA:
            _add_file(app, "/" if file.name == "index.html" else f"/page/{file.name}", file)


def _add_file(app: FastAPI, route: str, file: Path) -> None:
    content = file.read_bytes()
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}
    media = f"{MEDIA[file.suffix]}; charset=utf-8"

    def serve(request: Request) -> Response:
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media, headers=headers)

    app.add_api_route(route, serve, methods=["GET"], include_in_schema=False, name=f"page:{file.name}")

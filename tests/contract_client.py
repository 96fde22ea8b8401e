"""A script written for the MedImageInsights service, knowing nothing of ours: the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class MedImageInsightsClient:
    """``base``: such as http://127.0.0.1:8000."""

    base: str

    def encode(self, images: list[bytes] | None = None, texts: list[str] | None = None) -> Reply:
        packed = None if images is None else [base64.b64encode(image).decode("ascii") for image in images]
        return self.post("/encode", {"images": packed, "texts": texts})

    def predict(self, images: list[bytes], labels: list[str], multilabel: bool = False) -> Reply:
        packed = [base64.b64encode(image).decode("ascii") for image in images]
        return self.post("/predict", {"images": packed, "labels": labels, "multilabel": multilabel})

    def health(self) -> Reply:
        return self.request("GET", "/health", None)

    def post(self, path: str, body: Any) -> Reply:
        return self.request("POST", path, json.dumps(body).encode())

    def request(self, method: str, path: str, body: bytes | None, content_type: str = "application/json") -> Reply:
        where = urlsplit(self.base)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        try:
            headers = {"Content-Type": content_type} if body is not None else {}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, names, reply.read())
        finally:
            connection.close()

"""Pictures to send to the service contract, and a data directory whose encoder takes images and text."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from retrieval.gallery import Gallery
from retrieval.settings import Settings
from tests.contract_client import MedImageInsightsClient
from tests.encoder_files import make_open_clip, scene


def make_home(folder: Path) -> Path:
    """An empty gallery with both towers, of random weights."""
    encoder = f"open_clip:local-dir:{make_open_clip(folder / 'clip')}"
    Gallery.open(Settings(home=folder / "home", encoder=encoder), create=True).close()
    return folder / "home"


def png(seed: int = 0) -> bytes:
    return packed(Picture.fromarray(scene(seed=seed)), "PNG")


def packed(picture: Picture.Image, kind: str, **options: object) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


def vectors(client: MedImageInsightsClient, *images: bytes) -> np.ndarray:
    reply = client.encode(list(images))
    assert reply.status == 200, reply.body
    return np.array(reply.json()["image_embeddings"])

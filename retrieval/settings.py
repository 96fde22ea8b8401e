"""Settings: frozen, read once, never at import."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything that can be set, from ``PRECEDENT_*`` environment variables or keyword arguments."""

    model_config = SettingsConfigDict(env_prefix="PRECEDENT_", frozen=True, extra="forbid")

    home: Path = Field(Path(".precedent"), description="data directory: database, key, generations, kept uploads")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite at HOME/catalog.sqlite3")
    encoder: str = Field("compact", description="encoder a new gallery is bound to")
    precision: Literal["auto", "float32"] = Field(
        "auto", description="how networks run: auto, the fastest way that keeps their vectors; float32, torch as it is"
    )
    pooling: str = Field("mean", description="how slices become one vector: mean, max, min, median, std")
    index: str = Field(
        "auto",
        description="index backend for new generations: auto (auto:8G for so much memory), exact, fastscan, faiss, "
        "milvus://...",
    )
    workers: int = Field(0, ge=0, le=256, description="decoding processes; 0 means one per core")
    worker_memory_mb: int = Field(1024, ge=256, description="memory limit of one decoding process")
    task_seconds: float = Field(60.0, gt=0, description="time limit of one file's decoding")
    max_file_mb: int = Field(2048, ge=1, description="largest input file")
    max_upload_mb: int = Field(512, ge=1, description="largest HTTP request body")
    max_megapixels: float = Field(200.0, gt=0, description="largest single frame")
    max_frames: int = Field(20000, ge=1, description="most frames of one file or series")
    max_voxels_million: float = Field(600.0, gt=0, description="largest volume")
    volume_memory_mb: int = Field(
        4096, ge=64, description="most memory for one volume, as read and resampled, that is embedded as a whole"
    )
    max_slices: int = Field(
        256, ge=1, description="most slices embedded of one volume, evenly spaced; part of the fingerprint"
    )
    encode_queue: int = Field(
        1024, ge=1, description="images, slices and texts that may wait for the encoder over HTTP; past it 503"
    )
    answer_url: str = Field(
        "", description="OpenAI-compatible endpoint that writes answers, as http://127.0.0.1:8080/v1; off when empty"
    )
    answer_model: str = Field("", description="name of the endpoint's model")
    answer_key: SecretStr = Field(  # type: ignore[assignment]  # pydantic-settings validates defaults
        "", description="key of the endpoint; never shown"
    )
    answer_seconds: float = Field(60.0, gt=0, le=3600, description="time limit of one answer")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)

    @property
    def url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{(self.home / 'catalog.sqlite3').resolve()}"

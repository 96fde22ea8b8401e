"""``precedent export`` and ``precedent import``: vectors, and what is told of their cases, as .npy and Parquet.

The layout is that of clip-retrieval, which autofaiss and embedding-reader read: ``img_emb/img_emb_0.npy`` and
``metadata/metadata_0.parquet`` row for row, in shards of equal names. A manifest beside them says what made the vectors
and the SHA-256 of each file.
"""

from __future__ import annotations

from retrieval.vectors.export import Exported, export_vectors
from retrieval.vectors.manifest import VectorManifest, is_export, read_manifest
from retrieval.vectors.reading import ExportedVectors
from retrieval.vectors.source import CaseSource
from retrieval.vectors.taking import Taken, import_vectors, taking

__all__ = [
    "CaseSource",
    "Exported",
    "ExportedVectors",
    "Taken",
    "VectorManifest",
    "export_vectors",
    "import_vectors",
    "is_export",
    "read_manifest",
    "taking",
]

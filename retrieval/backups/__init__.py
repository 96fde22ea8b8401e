"""``precedent backup`` and ``precedent restore``: one state of a gallery as a directory that can be carried away.

A backup holds the catalog as one SQLite file, whatever database it came from, so that it can be restored into SQLite
and PostgreSQL alike; the live index generation; the pixels of kept uploads; and a manifest with the size and SHA-256
of each file. The key (``secret.key``) is in it only when that was asked for.
"""

from __future__ import annotations

from retrieval.backups.backup import Backup, KeptFiles, backup
from retrieval.backups.manifest import BackupManifest, read_backup
from retrieval.backups.restore import Restored, restore

__all__ = ["Backup", "BackupManifest", "KeptFiles", "Restored", "backup", "read_backup", "restore"]

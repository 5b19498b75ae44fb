"""Where bytes are kept: a folder or S3, behind one interface.

Keys are `uploads/{id}`, `artifacts/{job_id}/{attempt}/{name}` and `checkpoints/{job_id}/…`.
"""

from app.blobs.store import BlobMissing, BlobStore, open_store

__all__ = ["BlobMissing", "BlobStore", "open_store"]

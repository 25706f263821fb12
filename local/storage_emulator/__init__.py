"""An emulator of Supabase Storage: rows in ``storage.objects`` of a real Postgres, bytes on disk, the same answers.

It gives the answers that a real server gave, as recorded in ``tests/contract``; beyond that it can be told over HTTP to
fail in the ways in which servers, gateways and networks fail.
"""

from local.storage_emulator.server import StorageServer

__all__ = ["StorageServer"]

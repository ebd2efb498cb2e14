"""What can be wrong with the data folder, in words.

Raised by ``storage.db`` alone. The first tree ends the start of the daemon; ``StorageFailed`` and
``core.errors.StorageFull`` end one statement, and the next one may well succeed.
"""

from __future__ import annotations

from autotuned.core.errors import AutotuneError


class DataFolderUnusable(Exception):
    """The data folder or its database cannot be used. The message says why and what to do."""


class DatabaseDamaged(DataFolderUnusable):
    """The file is no database of autotune, or a damaged one."""


class DatabaseTooNew(DataFolderUnusable):
    """A newer autotune has written the database."""


class StorageFailed(AutotuneError):
    """A statement failed for a cause other than a full disk."""

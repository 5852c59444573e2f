"""What a listening test can't work with, in one line: what came, what was expected, what to do."""


class ListenError(ValueError):
    """A folder, a name or a rating that can't be used."""


class StorageError(ListenError):
    """The database of ratings can't be read or written."""

"""The one error of this package."""


class PackageError(Exception):
    """The package cannot be pushed; the message names the file, the line or the key, and what was expected."""

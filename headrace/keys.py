"""API keys: how one is made, and the line that stands in the tenants file in its place.

A key is `hr_ID_SECRET`: ID names it in files and logs, SECRET is 256 random bits. The file holds `ID:SHA-256 of the
key`. A fast hash without salt is enough here: salt and slow hashes protect what people choose, which can be guessed and
looked up in tables; nobody goes through 2^256 keys, however fast each is hashed, and every call pays for the hash.
"""

import hashlib
import secrets
from hmac import compare_digest

PREFIX = "hr_"
_SECRET_BYTES = 32


def new_key() -> str:
    """A key that nobody has."""
    return f"{PREFIX}{secrets.token_hex(4)}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def hash_line(key: str) -> str:
    """What the tenants file holds of a key."""
    return f"{key_id(key)}:{_digest(key)}"


def key_id(key: str) -> str:
    """The part that names it; empty if it is no key."""
    parts = key.split("_", 2)
    return parts[1] if len(parts) == 3 and key.startswith(PREFIX) else ""


def is_hash_line(line: str) -> bool:
    """Whether it looks like what `hash_line` gives."""
    key, _, digest = line.partition(":")
    return bool(key) and len(digest) == 64 and all(digit in "0123456789abcdef" for digit in digest)


def matches(key: str, line: str) -> bool:
    """Whether the line was made of this key; takes as long whatever differs."""
    return compare_digest(_digest(key), line.partition(":")[2])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()

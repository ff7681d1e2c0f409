"""The pool of KV blocks: reference counts, and a prefix cache over blocks that nobody uses at the moment.

A block is in exactly one of three places: held (its count is the number of block tables that name it), blank (free,
nothing worth keeping) or idle (free, but its tokens are known and another sequence may revive it). New blocks come from
the blank ones first, then from the idle one that was left longest ago.

A full block is known by a chained hash, as in vLLM's automatic prefix caching: of the hash before it and its token ids,
from a root that the tenant salts. So equal hashes mean equal tokens from the very beginning, for the same tenant.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence as Run

from services.common.errors import Internal


def root_digest(tenant: str) -> bytes:
    """Where the chain of a tenant's blocks begins."""
    return hashlib.blake2b(tenant.encode(), digest_size=16, person=b"headrace-kv").digest()


def block_digest(parent: bytes, token_ids: Run[int]) -> bytes:
    """The hash of a full block after `parent`; 16 bytes of BLAKE2b, so that nobody can craft a collision."""
    return hashlib.blake2b(parent + array("i", token_ids).tobytes(), digest_size=16).digest()


class BlockPool:
    """Blocks 0 to total-1.

    Args:
        caching: whether full blocks are remembered after they are released.
    """

    def __init__(self, total: int, *, caching: bool = True) -> None:
        self.total = total
        self.caching = caching
        self._counts = [0] * total
        self._digests: list[bytes | None] = [None] * total
        self._known: dict[bytes, int] = {}
        self._blank = list(range(total - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be taken now."""
        return len(self._blank) + len(self._idle)

    @property
    def idle(self) -> int:
        """Available blocks whose tokens are still known."""
        return len(self._idle)

    def take(self, count: int) -> list[int]:
        """New blocks for one holder; at most `available`. Forgets the longest idle ones if it must."""
        taken = [self._blank.pop() for _ in range(min(count, len(self._blank)))]
        while len(taken) < count:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
            taken.append(block)
        for block in taken:
            self._counts[block] = 1
        return taken

    def find(self, digest: bytes) -> int | None:
        """The block of this hash, held or idle."""
        return self._known.get(digest)

    def is_idle(self, block: int) -> bool:
        """Whether nobody holds this block, so that sharing it takes it from the available ones."""
        return block in self._idle

    def share(self, block: int) -> None:
        """One more holder for a block that `find` gave."""
        self._idle.pop(block, None)
        self._counts[block] += 1

    def register(self, block: int, digest: bytes) -> bool:
        """Lets others find a full, held block. False if that hash has a block already, or caching is off."""
        if not self.caching or digest in self._known:
            return False
        self._known[digest] = block
        self._digests[block] = digest
        return True

    def release(self, blocks: Run[int]) -> None:
        """One holder lets go of its whole table. Its last blocks are reused first: they are of least use to others."""
        for block in reversed(blocks):
            self._counts[block] -= 1
            if self._counts[block] == 0:
                if self._digests[block] is None:
                    self._blank.append(block)
                else:
                    self._idle[block] = None

    def forget(self, block: int) -> None:
        """The block does not hold what `register` said; nobody may find it any more."""
        if self._digests[block] is not None:
            self._forget(block)
            if block in self._idle:
                del self._idle[block]
                self._blank.append(block)

    def _forget(self, block: int) -> None:
        digest = self._digests[block]
        if digest is not None:
            del self._known[digest]
            self._digests[block] = None

    def check(self, tables: Run[Run[int]]) -> None:
        """Holds the pool against the block tables in use.

        Raises:
            Internal: a count is not the number of tables that name the block, or a block is lost or in two places.
        """
        counts = [0] * self.total
        for table in tables:
            for block in table:
                counts[block] += 1
        if counts != self._counts:
            wrong = [block for block in range(self.total) if counts[block] != self._counts[block]]
            raise Internal(f"block counts differ from the block tables for blocks {wrong[:10]}")
        free = sorted([*self._blank, *self._idle])
        if free != [block for block in range(self.total) if not counts[block]]:
            raise Internal("free blocks and held blocks do not add up to the pool")
        if {d: b for b, d in enumerate(self._digests) if d is not None} != self._known:
            raise Internal("the prefix cache names blocks that do not have that hash")
        if any(self._digests[b] is None for b in self._idle) or any(self._digests[b] for b in self._blank):
            raise Internal("a block is kept for its tokens without a hash, or has one and is not kept")

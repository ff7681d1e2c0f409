"""Which blocks of the pool a sequence can share, and which of its own it offers."""

from services.worker.llm.blocks import BlockPool, block_digest, root_digest
from services.worker.llm.sequence import Sequence


class PrefixCache:
    """The prefix cache, asked by sequences rather than hashes. A pool that does not cache makes it hash nothing."""

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self._pool = pool
        self._size = block_size

    def find(self, sequence: Sequence) -> list[int]:
        """Blocks that hold the sequence's first tokens. Never that of the last token: its logits are wanted."""
        found: list[int] = []
        if self._pool.caching:
            for index in range((len(sequence.tokens) - 1) // self._size):
                block = self._pool.find(self._digest(sequence, index))
                if block is None:
                    break
                found.append(block)
        return found

    def register(self, sequence: Sequence) -> list[int]:
        """Offers the blocks of a sequence that are full now, and known to their last token; those that were news."""
        news: list[int] = []
        full = min(sequence.computed, len(sequence.tokens)) // self._size
        while sequence.registered < full:
            index = sequence.registered
            sequence.registered += 1
            block = sequence.blocks[index]
            if self._pool.caching and self._pool.register(block, self._digest(sequence, index)):
                news.append(block)
        return news

    def _digest(self, sequence: Sequence, index: int) -> bytes:
        """The chained hash of the sequence's block `index`, all of whose tokens are known. Each is made once."""
        digests = sequence.digests
        while len(digests) <= index:
            parent = digests[-1] if digests else root_digest(sequence.request.tenant)
            start = len(digests) * self._size
            digests.append(block_digest(parent, sequence.tokens[start : start + self._size]))
        return digests[index]

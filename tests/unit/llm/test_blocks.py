"""The block pool by cases: who holds what, what is reused first, what the cache finds."""

import pytest

from services.common.errors import Internal
from services.worker.llm.blocks import BlockPool, block_digest, root_digest

A, B, C, D = (block_digest(root_digest(""), [number] * 4) for number in range(4))


def test_a_digest_stands_for_tokens_their_past_and_the_tenant() -> None:
    root = root_digest("x")
    first = block_digest(root, [1, 2, 3, 4])
    assert first == block_digest(root_digest("x"), (1, 2, 3, 4))
    others = [
        block_digest(root_digest("y"), [1, 2, 3, 4]),
        block_digest(first, [1, 2, 3, 4]),
        block_digest(root, [1, 2, 3, 5]),
        block_digest(root, [1, 2, 3]),
        block_digest(root, [4, 3, 2, 1]),
    ]
    assert len({first, *others}) == 6


def test_a_released_block_is_found_until_it_is_needed() -> None:
    pool = BlockPool(3)
    (block,) = pool.take(1)
    assert pool.register(block, A)
    pool.release([block])
    assert (pool.available, pool.idle) == (3, 1)
    pool.take(2)
    assert pool.find(A) == block, "blank blocks go first"
    assert pool.take(1) == [block]
    assert pool.find(A) is None
    assert pool.available == 0


def test_the_longest_idle_block_goes_first_and_a_revived_one_counts_as_new() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3)
    for block, digest in zip(blocks, (A, B, C), strict=True):
        pool.register(block, digest)
        pool.release([block])
    pool.share(blocks[0])
    pool.release([blocks[0]])
    assert pool.take(2) == [blocks[1], blocks[2]]
    assert pool.find(A) == blocks[0]


def test_the_end_of_a_table_is_reused_before_its_beginning() -> None:
    pool = BlockPool(3)
    table = pool.take(3)
    for block, digest in zip(table, (A, B, C), strict=True):
        pool.register(block, digest)
    pool.release(table)
    assert pool.take(2) == [table[2], table[1]]


def test_a_shared_block_is_free_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(2)
    table = pool.take(1)
    pool.share(table[0])
    pool.check([table, table])
    pool.release(table)
    assert pool.available == 1
    pool.check([table])
    pool.release(table)
    assert pool.available == 2
    pool.check([])


def test_two_blocks_with_the_same_tokens_are_known_by_the_first() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    assert pool.register(first, A)
    assert not pool.register(second, A)
    pool.release([second])
    assert pool.idle == 0
    assert pool.find(A) == first


def test_what_is_forgotten_is_found_no_more() -> None:
    pool = BlockPool(2)
    held, idle = pool.take(2)
    pool.register(held, A)
    pool.register(idle, B)
    pool.release([idle])
    pool.forget(held)
    pool.forget(idle)
    assert (pool.find(A), pool.find(B), pool.idle, pool.available) == (None, None, 0, 1)
    pool.check([[held]])


def test_without_caching_nothing_is_known() -> None:
    pool = BlockPool(1, caching=False)
    (block,) = pool.take(1)
    assert not pool.register(block, A)
    pool.release([block])
    assert (pool.find(A), pool.idle) == (None, 0)


def test_books_that_do_not_balance_are_reported() -> None:
    pool = BlockPool(3)
    table = pool.take(2)
    with pytest.raises(Internal, match=r"block counts differ from the block tables for blocks \[0, 1\]"):
        pool.check([])
    with pytest.raises(Internal, match=r"differ .* blocks \[1\]"):
        pool.check([table, table[1:]])
    pool.check([table])

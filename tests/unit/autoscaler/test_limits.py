"""What an operator has set, as the next autoscaler finds it."""

from pathlib import Path

import pytest

from services.autoscaler.limits import KEY, Orders, load, save
from services.autoscaler.policy.config import Limits
from services.common.errors import InvalidArgument
from services.common.objects.connect import one
from services.common.objects.directory import DirectoryStore


async def test_what_was_ordered_is_found_by_the_next_one(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    assert await load(store) == Orders()
    await save(store, Orders(Limits(1, 9), paused=True))
    assert await load(store) == Orders(Limits(1, 9), paused=True)
    await store.put(KEY, one(b"[]"))
    with pytest.raises(InvalidArgument, match="delete it to begin anew"):
        await load(store)

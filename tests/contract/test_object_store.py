"""What every ObjectStore does: a folder, S3 by rclone (ignores conditions), S3 by moto (honours them)."""

import asyncio
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Unavailable
from services.common.objects.connect import clock_of, honours_conditions, one, open_store, whole
from services.common.objects.directory import DirectoryStore
from services.common.objects.port import ObjectStore
from tests.support.stores import RunningStore, rclone_s3

BIG = 20 * 1024 * 1024 + 7  # three parts


@pytest.fixture
async def store(running_store: RunningStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store opened by its URL."""
    for name, value in running_store.environment.items():
        monkeypatch.setenv(name, value)
    return await open_store(running_store.url)


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    """The keys below a prefix, as listed."""
    return [info.key async for info in store.list(prefix)]


async def pieces(content: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    """The content in chunks that fit no part size."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, BIG])
async def test_what_was_put_is_got(store: ObjectStore, size: int) -> None:
    content = os.urandom(size)
    info = await store.put(f"round/trip-{size}", pieces(content))
    assert (info.key, info.size) == (f"round/trip-{size}", size)
    assert await whole(store, f"round/trip-{size}") == content
    (listed,) = [found async for found in store.list(f"round/trip-{size}")]
    assert listed.size == size


async def test_putting_again_replaces_and_changes_the_tag(store: ObjectStore) -> None:
    await store.put("replaced", one(b"old"))
    (before,) = [info async for info in store.list("replaced")]
    await store.put("replaced", one(b"new"))
    (after,) = [info async for info in store.list("replaced")]
    assert await whole(store, "replaced") == b"new"
    assert before.etag != after.etag


@pytest.mark.parametrize("before", [1000, BIG])
async def test_a_stream_that_breaks_leaves_nothing(store: ObjectStore, before: int) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(before)
        raise InvalidArgument("the digest differs")

    with pytest.raises(InvalidArgument, match="digest"):
        await store.put(f"broken/{before}", broken())
    assert await keys(store, "broken/") == []
    with pytest.raises(NotFound):
        await whole(store, f"broken/{before}")


async def test_a_broken_stream_leaves_what_was_there(store: ObjectStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise InvalidArgument("the digest differs")

    await store.put("kept", one(b"whole"))
    with pytest.raises(InvalidArgument):
        await store.put("kept", broken())
    assert await whole(store, "kept") == b"whole"


async def test_listing_is_by_prefix_and_in_key_order(store: ObjectStore) -> None:
    names = ["list/b/2", "list/a", "list/b/10", "list/b-side", "list/b/1", "other/x"]
    for name in names:
        await store.put(name, one(b"."))
    assert await keys(store, "list/") == sorted(name for name in names if name.startswith("list/"))
    assert await keys(store, "list/b/") == ["list/b/1", "list/b/10", "list/b/2"]
    assert await keys(store, "list/b/1") == ["list/b/1", "list/b/10"]
    assert await keys(store, "nothing/here/") == []


async def test_listing_goes_over_many_pages(store: ObjectStore) -> None:
    names = [f"pages/{number:04d}" for number in range(1010)]
    for start in range(0, len(names), 50):
        await asyncio.gather(*(store.put(name, one(b".")) for name in names[start : start + 50]))
    assert await keys(store, "pages/") == names


async def test_deleting_twice_is_no_error(store: ObjectStore) -> None:
    await store.put("deleted/key", one(b"."))
    await store.delete("deleted/key")
    await store.delete("deleted/key")
    assert await keys(store, "deleted/") == []
    with pytest.raises(NotFound):
        await whole(store, "deleted/key")


async def test_objects_have_ages_by_the_stores_own_clock(store: ObjectStore) -> None:
    await store.put("aged/key", one(b"."))
    (first,) = [info.written async for info in store.list("aged/key")]
    # S3 counts whole seconds.
    assert 0 <= await clock_of(store) - first + 1 < 600
    assert abs(first - time.time()) < 600
    assert await keys(store, "probes/") == []


async def test_a_url_reads_without_credentials(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put("url/some thing+more", one(b"by url"))
    url = await store.url("url/some thing+more", 60)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)

    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bytes(response.read())

    assert await asyncio.to_thread(read) == b"by url"


async def test_the_probe_tells_what_the_store_does(store: ObjectStore, running_store: RunningStore) -> None:
    assert await honours_conditions(store) is running_store.conditional
    assert await keys(store, "probes/") == []


async def test_of_racing_conditional_writers_one_wins(store: ObjectStore, running_store: RunningStore) -> None:
    if not running_store.conditional:
        pytest.skip("this store ignores conditions: run one job service and one autoscaler on it")
    answers = await asyncio.gather(
        *(store.put("race/key", one(b"%d" % number), if_absent=True) for number in range(16)), return_exceptions=True
    )
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert all(isinstance(answer, AlreadyExists) for answer in answers if isinstance(answer, Exception))
    winner = next(number for number, answer in enumerate(answers) if not isinstance(answer, Exception))
    assert await whole(store, "race/key") == b"%d" % winner


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/.", "a\0b", ".partial/x"])
async def test_a_folder_refuses_keys_that_leave_it(tmp_path: Path, key: str) -> None:
    store = DirectoryStore(tmp_path / "store")
    with pytest.raises(InvalidArgument, match="object key"):
        await store.put(key, one(b"."))
    with pytest.raises(InvalidArgument, match="object key"):
        await store.url(key, 1)
    with pytest.raises(InvalidArgument, match="object key"):
        await store.delete(key)


async def test_a_folder_lists_nothing_above_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(InvalidArgument, match="object key"):
        await keys(DirectoryStore(tmp_path / "store"), "../")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((Unavailable, NotFound), match="file/store"):
        DirectoryStore(tmp_path / "file" / "store")


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    DirectoryStore(tmp_path)
    old, fresh = tmp_path / ".partial" / "old", tmp_path / ".partial" / "fresh"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    DirectoryStore(tmp_path)
    assert not old.exists()
    assert fresh.exists()


@pytest.mark.parametrize("url", ["", "models", "file://relative", "http://x/y", "s3://", "s3://b/p?endpont=http://x"])
async def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="store"):
        await open_store(url)


async def test_wrong_credentials_are_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rclone_s3(tmp_path) as running_s3:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another-access-key-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-access-key")
        with pytest.raises(PermissionDenied, match="credentials"):
            await open_store(running_s3.url)

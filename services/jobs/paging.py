"""Pages of ids, newest first. Pure."""

from collections.abc import Sequence

from services.common.errors import InvalidArgument


def page(ids: Sequence[str], limit: int, after: str) -> tuple[list[str], bool]:
    """One page, and whether there is more.

    Args:
        ids: oldest first.
        after: the last id of the page before; empty: from the newest on.

    Raises:
        InvalidArgument: there is no such id.
    """
    newest = list(reversed(ids))
    if after and after not in newest:
        raise InvalidArgument(f"after is {after[:128]!r}; expected the id of the last one of the page before")
    begin = newest.index(after) + 1 if after else 0
    return newest[begin : begin + limit], len(newest) > begin + limit

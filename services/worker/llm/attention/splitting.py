"""How a GPU is filled by few sequences: each is split along its keys. Pure."""

# Keys that a part has at least, and the most parts: joining them costs, too.
_PART_KEYS = 256
MOST_PARTS = 32


def parts(programs: int, longest: int, wanted: int) -> int:
    """Into how many parts each of a step's programs is split; a power of two.

    Args:
        programs: how many there are.
        longest: no context is longer, in tokens.
        wanted: programs that fill the GPU.
    """
    most = min(wanted // programs, longest // _PART_KEYS, MOST_PARTS)
    return 1 << (most.bit_length() - 1) if most > 1 else 1

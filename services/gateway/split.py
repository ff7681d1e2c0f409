"""Which of two versions a request gets while one takes over from the other. Pure."""

from dataclasses import dataclass
from hashlib import blake2b

# Versions by these names are the rollout's to choose: none at all, or the alias of its stable version.
GOVERNED = frozenset({"", "production"})
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Split:
    """A rollout as the hot path wants it.

    Attributes:
        share: of requests that get the candidate, or are copied to it; 0 to 1.
    """

    stable: int
    candidate: int
    share: float
    shadow: bool

    def choose(self, at: float) -> tuple[int, int]:
        """The version that answers a request at this place (0 to 1), and the version that gets a copy (0: none)."""
        if not self.candidate or at >= self.share:
            return self.stable, 0
        return (self.stable, self.candidate) if self.shadow else (self.candidate, 0)


def place_of(model: str, key: str) -> float:
    """Where a key stands among all, 0 to 1: the same on every gateway and for every weight.

    So a higher weight adds keys to the candidate's and takes none from it.
    """
    digest = blake2b(f"{model}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def place_of_nth(number: int) -> float:
    """Where the nth request without a key stands: any run of them is spread evenly (Weyl's sequence)."""
    return number * _GOLDEN % 1.0

"""Tenants in one engine: the next is chosen by the tokens that each has had, and who has most gives rows back.

Tokens are what compute time is made of here; as in "Fairness in Serving Large Language Models" (Sheng et al., OSDI
2024) one that is read counts 1 and one that is generated 2. To choose fairly among those who wait is not enough for
somebody who sends little: a flood of long generations has taken every row by then. So a tenant with fewer rows than his
part may have one from a tenant with more than his, whose last sequence waits again; with the prefix cache it is soon
where it was.
"""

from collections import Counter
from collections.abc import Iterator

from services.common.fair import Shares
from services.worker.llm.line import Line
from services.worker.llm.sequence import Sequence

# Steps' worth of tokens that a tenant who had less than his part has before others: a short answer or two.
CREDIT = 64


class WaitingLine:
    """Those who wait: each tenant's in their order.

    Attributes:
        shared: somebody has named a tenant; until then nothing is counted.
        over: who is over his part (`pace.py`), and comes after all others.
    """

    def __init__(self) -> None:
        self._shares = Shares(CREDIT)
        self._lines: dict[str, Line] = {}
        self._length = 0
        self.shared = False
        self.over: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Sequence]:
        for line in self._lines.values():
            yield from line

    def first(self) -> Sequence:
        """Who is next: of the tenant who has had least, the first in order."""
        tenants = [each for each in self._lines if each not in self.over] if self.over else None
        return self._lines[self._shares.least(tenants or self._lines)][0]

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence where it belongs."""
        tenant = sequence.request.tenant
        if tenant not in self._lines:
            self._lines[tenant] = Line()
            self._shares.join(tenant, sequence.request.weight)
            self.shared = self.shared or bool(tenant)
        self._lines[tenant].add(sequence)
        self._length += 1

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, which must be there."""
        tenant = sequence.request.tenant
        self._lines[tenant].remove(sequence)
        if not len(self._lines[tenant]):
            del self._lines[tenant]
        self._length -= 1

    def charge(self, tenant: str, tokens: int) -> None:
        """A tenant is given so many."""
        self._shares.serve(tenant, tokens)

    def who_yields(self, running: Line, rows: int) -> Sequence | None:
        """Whose row the first in line may have; None: its tenant has his part, or nobody has more than his.

        It is stable: who has just lost a row has no less than his part, so he takes none back.
        """
        first = self.first().request.tenant
        heads = [line[0] for line in self._lines.values()]
        weights = {each.request.tenant: each.request.weight for each in (*heads, *running)}
        held, total = Counter(each.request.tenant for each in running), sum(weights.values())
        over = {tenant: held[tenant] - rows * weight / total for tenant, weight in weights.items()}
        most = max(over, key=over.__getitem__)
        if over[first] + 1 > 0 or over[most] <= 0:
            return None
        return next(each for each in reversed(list(running)) if each.request.tenant == most)

"""A stand-in for the model runner, without tensors: what the scheduler plans, it does by the letter.

A slot of its KV store holds, in place of keys and values, what they depend on in a causal model: the tenant and every
token up to that position. So a wrong block, row, position or order is seen the moment that somebody reads it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.worker.llm.config import SchedulerConfig
from services.worker.llm.plan import Plan

History = tuple[str, tuple[int, ...]]
EOS = 2


def next_token(history: History) -> int:
    """The model: a token from 2 (the end) to 8, that depends on all of the history."""
    tenant, tokens = history
    state = len(tenant) * 7
    for token in tokens:
        state = (state * 31 + token * 17 + 5) % 1009
    return EOS + state % 7


def generate(tenant: str, prompt: Iterable[int], limit: int, ends: frozenset[int] = frozenset({EOS})) -> list[int]:
    """What one sequence alone comes to: the tokens after the prompt, until `limit` tokens in all or an end."""
    tokens = list(prompt)
    start = len(tokens)
    while len(tokens) < limit:
        tokens.append(next_token((tenant, tuple(tokens))))
        if tokens[-1] in ends:
            break
    return tokens[start:]


@dataclass
class ShadowRunner:
    """Runs plans on a store of histories and checks what only a runner can see."""

    config: SchedulerConfig
    slots: dict[int, History] = field(default_factory=dict)
    tables: dict[int, dict[int, int]] = field(default_factory=dict)
    reached: dict[int, int] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    sampled: dict[int, int] = field(default_factory=dict)

    def run(self, plan: Plan) -> list[int]:
        """One token for each of `plan.sampling`."""
        self._check_limits(plan)
        self._take_rows(plan)
        for row, column, block in zip(plan.table_rows, plan.table_columns, plan.table_blocks, strict=True):
            self.tables.setdefault(row, {})[column] = block
        histories = self._store(plan)
        for place, history in enumerate(histories):
            self._attend(plan, place, history)
        tokens = [next_token(histories[place]) for place in plan.sampling]
        self.sampled.update((plan.rows[place], token) for place, token in zip(plan.sampling, tokens, strict=True))
        return tokens

    def _check_limits(self, plan: Plan) -> None:
        assert len(plan.token_ids) == sum(plan.counts) <= self.config.max_num_batched_tokens
        assert len(plan.sequences) == len(set(plan.rows)) <= self.config.max_num_seqs
        assert all(count > 0 for count in plan.counts)
        assert all(0 <= row < self.config.max_num_seqs for row in plan.rows)
        assert all(0 <= block < self.config.num_blocks for block in plan.table_blocks)

    def _take_rows(self, plan: Plan) -> None:
        for sequence in plan.admitted:
            self.owners[sequence.row] = sequence.id
            self.reached.pop(sequence.row, None)
        for sequence, row, start, count in zip(plan.sequences, plan.rows, plan.starts, plan.counts, strict=True):
            assert self.owners[row] == sequence.id
            assert self.reached.get(row, start) == start, f"{sequence.id} was at {self.reached[row]}, not {start}"
            self.reached[row] = start + count

    def _store(self, plan: Plan) -> list[History]:
        """Every chunk's tokens go into their slots before anybody reads. The history at each chunk's end."""
        written: set[int] = set()
        histories: list[History] = []
        flat = 0
        for sequence, row, start, count in zip(plan.sequences, plan.rows, plan.starts, plan.counts, strict=True):
            ids = plan.token_ids[flat : flat + count]
            flat += count
            if ids[-1] == -1:
                ids[-1] = self.sampled[row]
            tenant, before = sequence.request.tenant, tuple(sequence.tokens[:start])
            if len(before) < start:  # steps overlap: what was sampled and not committed stands in the slot before
                assert count == 1
                before = self.slots[self._slot(row, start - 1)][1]
            for offset in range(count):
                slot = self._slot(row, start + offset)
                assert slot not in written, "two chunks of one plan write the same slot"
                written.add(slot)
                self.slots[slot] = (tenant, before + tuple(ids[: offset + 1]))
            histories.append((tenant, before + tuple(ids)))
        return histories

    def _attend(self, plan: Plan, place: int, history: History) -> None:
        tenant, tokens = history
        for position in range(plan.starts[place] + plan.counts[place]):
            assert self.slots[self._slot(plan.rows[place], position)] == (tenant, tokens[: position + 1])

    def _slot(self, row: int, position: int) -> int:
        size = self.config.block_size
        return self.tables[row][position // size] * size + position % size

"""What one step of the engine computes: plain lists of ints, in the flat order of the step's tokens."""

from dataclasses import dataclass, field

from services.worker.llm.sequence import Sequence


@dataclass(slots=True, eq=False)
class Plan:
    """Chunks of sequences, one behind the other.

    A layer stores the keys and values of the whole plan before it attends: a sequence may share blocks that another
    chunk of the same plan fills.

    Attributes, one entry for each chunk:
        sequences: whose it is.
        rows: the sequence's row, from 0 to max_num_seqs - 1, its own from admission until it ends or is preempted.
        starts: position of the chunk's first token.
        counts: tokens in the chunk; the sequence's context after it is start + count.

    Attributes, flat:
        token_ids: the tokens of all chunks; -1: the token last sampled for this row, by a plan that is not committed
            yet (only when steps overlap).
        sampling: places in `sequences` whose last token's logits are sampled, ascending.
        table_rows, table_columns, table_blocks: block-table entries that are new, to be written before the step:
            table[row, column] = block. What else stands in a row stays true while the sequence keeps it.

    Attributes, for whoever keeps state for rows or answers callers:
        admitted: sequences that took a row in this plan, new or back from preemption.
        preempted: sequences that lost row and blocks to make room, before any was admitted; they wait again.
        expired: sequences whose deadline passed, ended with "abort".
        registered: blocks that the prefix cache learnt of in this plan.
    """

    sequences: list[Sequence] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    sampling: list[int] = field(default_factory=list)
    table_rows: list[int] = field(default_factory=list)
    table_columns: list[int] = field(default_factory=list)
    table_blocks: list[int] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    expired: list[Sequence] = field(default_factory=list)
    registered: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.sequences)

    def add(self, sequence: Sequence, count: int) -> None:
        """Puts the next `count` tokens of a sequence at the end. Its `computed` moves past them."""
        start, tokens = sequence.computed, sequence.tokens
        end = start + count
        if end == len(tokens) + sequence.pending:
            self.sampling.append(len(self.sequences))
            if sequence.pending:
                self.token_ids.extend(tokens[start:])
                self.token_ids.append(-1)
            else:
                self.token_ids.extend(tokens[start:end])
            sequence.pending += 1
        else:
            self.token_ids.extend(tokens[start:end])
        self.sequences.append(sequence)
        self.rows.append(sequence.row)
        self.starts.append(start)
        self.counts.append(count)
        sequence.computed = end

    def extend_table(self, row: int, column: int, blocks: list[int]) -> None:
        """Notes new blocks of a row, from a column on."""
        self.table_rows.extend([row] * len(blocks))
        self.table_columns.extend(range(column, column + len(blocks)))
        self.table_blocks.extend(blocks)

"""One sequence on its way through the scheduler. Pure: no torch, no clock."""

from dataclasses import dataclass, field

from services.worker.llm.request import FinishReason, GenerationRequest


@dataclass(slots=True, eq=False)
class Sequence:
    """Known tokens, and how many of them are computed: everything else follows from the two.

    Attributes:
        number: order of arrival.
        limit: tokens, prompt included, at which it ends with "length".
        end_ids: tokens that end it.
        tokens: prompt and output ids known so far.
        computed: leading tokens whose keys and values are stored, counted as soon as a plan has them.
        pending: tokens that plans under way will sample for it (0 between a commit and the next step).
        blocks: its block table: position p is in block `blocks[p // block_size]`.
        digests: chained hashes of its leading full blocks, as far as somebody asked.
        registered: leading blocks that the prefix cache has been told of.
        row: the runner's place for its state while it runs; -1 otherwise.
        cached_tokens: prompt tokens found in the prefix cache when it was first admitted; -1 before.
        preemptions: how often it lost its blocks.
    """

    request: GenerationRequest
    number: int
    limit: int
    end_ids: frozenset[int]
    tokens: list[int]
    computed: int = 0
    pending: int = 0
    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    registered: int = 0
    row: int = -1
    cached_tokens: int = -1
    preemptions: int = 0
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def order(self) -> tuple[int, int]:
        """Who comes first wherever there is a choice: higher priority, then earlier arrival. Smaller is sooner."""
        return (-self.request.priority, self.number)

    @property
    def missing(self) -> int:
        """Tokens known, or on the way, and not yet computed."""
        return len(self.tokens) + self.pending - self.computed

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def output_length(self) -> int:
        """Tokens generated so far, resumed ones included."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def output_tokens(self) -> list[int]:
        """A copy of the tokens generated so far, resumed ones included."""
        return self.tokens[len(self.request.prompt) :]

    def end_after_last(self) -> FinishReason | None:
        """Whether the last token, an output, ends the sequence, and how. Notes the stop reason."""
        last, params = self.tokens[-1], self.request.params
        if last in self.end_ids and self.output_length >= params.min_tokens:
            self.stop_reason = last if last in params.stop_token_ids else None
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

"""What one worker owes one gateway: replies gathered into frames, and frames kept until they are confirmed. No I/O."""

from collections import deque
from collections.abc import Callable, Iterator

from headrace.v1.reply_pb2 import AttachRequest, Reply

# A frame is closed at this size: many large replies must not add up to more than one message may hold.
FRAME_BYTES = 4 * 1024 * 1024

Settle = Callable[[], None]


class Outbox:
    """Replies on their way to a gateway, with whom to tell when each has arrived."""

    def __init__(self) -> None:
        self._sequence = 0
        self._waiting: deque[tuple[AttachRequest, list[Settle]]] = deque()
        self._unconfirmed: deque[tuple[AttachRequest, list[Settle]]] = deque()
        self._frame, self._settles, self._bytes = AttachRequest(), list[Settle](), 0

    def reply(self, reply: Reply, settle: Settle, *, hurry: bool) -> None:
        """Adds a reply; `settle` is called once it is confirmed or void, a little later where there is no hurry."""
        size = len(reply.body)
        if self._bytes and self._bytes + size > FRAME_BYTES:
            self._close()
        self._frame.replies.append(reply)
        self._settles.append(settle)
        if hurry:
            self._frame.hurry = True
        self._bytes += size + 64

    def claim(self, request_id: int) -> None:
        """Adds a claim: behind the replies that were given before it."""
        self._frame.claims.add(id=request_id)

    def fetch(self, request_id: int) -> None:
        """Adds a wish for a payload."""
        self._frame.fetches.append(request_id)

    def take(self) -> AttachRequest | None:
        """The next frame to write; None if there is nothing to say."""
        if not self._waiting:
            if not (self._frame.replies or self._frame.claims or self._frame.fetches):
                return None
            self._close()
        frame, settles = self._waiting.popleft()
        if settles:
            self._sequence += 1
            frame.sequence = self._sequence
            self._unconfirmed.append((frame, settles))
        return frame

    def confirm(self, sequence: int) -> None:
        """Everything up to this frame has arrived."""
        while self._unconfirmed and self._unconfirmed[0][0].sequence <= sequence:
            for settle in self._unconfirmed.popleft()[1]:
                settle()

    def repeated(self) -> Iterator[AttachRequest]:
        """What the last stream may have lost, for the next one: replies only, since claims are asked anew."""
        for frame, _ in list(self._unconfirmed):
            yield AttachRequest(sequence=frame.sequence, replies=frame.replies, hurry=True)

    def forget_questions(self) -> None:
        """The stream broke: claims and fetches that were not written are asked anew, if at all."""
        for frame in (self._frame, *(frame for frame, _ in self._waiting)):
            frame.ClearField("claims")
            frame.ClearField("fetches")

    def void(self) -> None:
        """Nobody is left to answer: settles everything."""
        if self._settles:
            self._close()
        frames = [*self._unconfirmed, *self._waiting]
        self._unconfirmed.clear()
        self._waiting.clear()
        for _, settles in frames:
            for settle in settles:
                settle()

    def _close(self) -> None:
        self._waiting.append((self._frame, self._settles))
        self._frame, self._settles, self._bytes = AttachRequest(), [], 0

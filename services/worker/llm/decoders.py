"""A tokenizer's way back from ids to text."""

from collections.abc import Sequence

from tokenizers import Tokenizer


class TokenizerDecoder:
    """Implements detokenise.Decoder, for one choice of special tokens."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer, self._skip = tokenizer, skip_special_tokens

    def decode(self, ids: Sequence[int], /) -> str:
        """See detokenise.Decoder."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=self._skip)


def decoders(tokenizer: Tokenizer) -> tuple[TokenizerDecoder, TokenizerDecoder]:
    """That which shows special tokens, and that which skips them: indexed by `skip_special_tokens`."""
    return TokenizerDecoder(tokenizer, False), TokenizerDecoder(tokenizer, True)

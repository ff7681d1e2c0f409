"""Small tokenizers of the kinds that language models have, made on the spot with the real library."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The mill wheel turns while water runs down the headrace, and the miller sleeps.",
    "Größe, naïve café, über 100 € – «schön»; ça va? Ærø, smørrebrød.",
    "水は低きに流れる。水車が回る。你好，世界！水车转动。물레방아가 돌아간다.",
    "def turn(wheel):\n    return wheel.angle + 1  # radians\n",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 e\u0301 n\u0303 \u0928\u092e\u0938\u094d\u0924\u0947 Привет, мир!",
]
END = "<|end|>"


@dataclass(frozen=True)
class Library:
    """The decoder port over the tokenizers library, as the worker's adapter has it."""

    tokenizer: Tokenizer
    skip_special_tokens: bool = True

    def decode(self, ids: Sequence[int], /) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=self.skip_special_tokens)
        return text


def byte_level() -> Tokenizer:
    """GPT-2's kind (Llama 3, Qwen): bytes as letters, merges across them; tokens may end within a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    return tokenizer


def _pieces() -> list[str]:
    words = {f"▁{word}" for text in CORPUS for word in text.split()[:4]}
    letters = {letter for text in CORPUS[:2] for letter in text if letter > " "}
    return ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *sorted(words | letters)]


def unigram() -> Tokenizer:
    """SentencePiece's kind with byte fallback (Llama 2, Gemma): spaces as ▁, unknown characters as bytes."""
    scores = [(piece, -float(10 - min(len(piece), 9))) for piece in _pieces()]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([END])
    return tokenizer


def metaspace() -> Tokenizer:
    """The same pieces under the plain Metaspace decoder (T5's): the first ▁ is dropped, bytes fall back."""
    tokenizer = unigram()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "first"), decoders.Fuse()])
    return tokenizer


def id_of(tokenizer: Tokenizer, piece: str) -> int:
    """The id of a piece that must be there."""
    found = tokenizer.token_to_id(piece)
    assert found is not None, piece
    return found

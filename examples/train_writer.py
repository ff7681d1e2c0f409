"""Trains a small Llama on Python's own language reference, so that there is a language model to try.

    python examples/train_writer.py [--folder examples/writer] [--steps 1500] [--threads 1]

The text is `pydoc_data.topics`, which comes with Python: what `help("for")` prints. The tokenizer is byte-level, so any
text can be a prompt. The folder that comes of it is a Hugging Face model of two million parameters: `headrace push
writer examples/writer`. On one processor with bfloat16 arithmetic it takes ten minutes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|end|>"
VOCABULARY = 1024
CONTEXT = 512
# Each step learns from so many pieces of so many tokens.
ROWS, LENGTH = 16, 256
HIGHEST_RATE, WARM_UP = 4e-3, 0.03
# Every so many topics one is left out of training, to see what the model makes of text that it has not read.
HELD_OUT = 16


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level pairs, as GPT-2 has them; `END` is token 0 and ends a topic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_model() -> LlamaForCausalLM:
    """2.2 million parameters; small enough to be kept in a repository."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=6,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
    )


def joined(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """int64 [tokens]: all topics, each with its end."""
    return torch.tensor([token for text in texts for token in [*tokenizer.encode(text).ids, 0]])


def rate_at(done: float) -> float:
    """The learning rate when so much is over, 0 to 1: up quickly, down in a straight line."""
    return HIGHEST_RATE * min(done / WARM_UP, 1 - done)


def batches(tokens: Tensor, steps: int) -> Iterator[Tensor]:
    """[ROWS, LENGTH] pieces from random places, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        places = torch.randint(len(tokens) - LENGTH, (ROWS,), generator=generator)
        yield torch.stack([tokens[place : place + LENGTH] for place in places.tolist()])


def train(model: LlamaForCausalLM, tokens: Tensor, steps: int) -> float:
    """AdamW; returns the mean loss of the last fifty steps, in nats a token."""
    model.set_attn_implementation("eager")  # of all, the fastest to train on a processor
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    losses: list[float] = []
    for step, pieces in enumerate(batches(tokens, steps), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step / steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=pieces, labels=pieces).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step:5} of {steps}, loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])


@torch.inference_mode()
def loss_on(model: LlamaForCausalLM, tokens: Tensor) -> float:
    """Nats a token."""
    pieces = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    return float(model(input_ids=pieces, labels=pieces).loss)


def main(folder: Path, steps: int, threads: int) -> None:
    """Start to finish."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    texts = [topics[name].strip() + "\n" for name in sorted(topics)]
    unread, read = texts[::HELD_OUT], [text for number, text in enumerate(texts) if number % HELD_OUT]
    tokenizer, model = train_tokenizer(read), make_model()
    tokens = joined(tokenizer, read)
    print(f"{sum(map(len, read)):,} characters, {len(tokens):,} tokens, {model.num_parameters():,} parameters")
    loss = train(model.train(), tokens, steps)
    held_out = loss_on(model.eval(), joined(tokenizer, unread))
    print(f"loss {loss:.2f} nats a token, {held_out:.2f} on the {len(unread)} topics left out of training")
    model.bfloat16().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "writer")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.steps, arguments.threads)

"""One rank of a tensor-parallel replica, but the first: `python -m services.worker.llm.rank JSON`, started by Group.

It loads its part of the model, says that it is ready, and computes what comes down its standard input until that ends.
Only the first rank draws tokens, so the others need no logits.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import BinaryIO

import torch
from torch._C._distributed_c10d import TCPStore

from services.worker.llm import loading
from services.worker.llm.attention import hook
from services.worker.llm.forward import Forward
from services.worker.llm.group import READY, Members, decode
from services.worker.llm.options import EngineOptions
from services.worker.llm.sharding import move, shard


def main() -> None:
    """Runs the rank that the command line describes."""
    told = json.loads(sys.argv[1])
    options, rank = EngineOptions(**told["options"]), int(told["rank"])
    # The pipe is for the one word below; whatever prints, prints to standard error.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if options.threads:
        torch.set_num_threads(options.threads)
    hook.register()
    ranks = options.tensor_parallel_size
    store = TCPStore("127.0.0.1", told["port"], ranks, is_master=False)
    language_model = loading.load(Path(told["folder"]), options, attention=hook.NAME, device="cpu")
    answer.write(READY)
    answer.flush()
    device = torch.device(f"cuda:{rank}" if torch.cuda.is_available() else "cpu")
    members = Members(store, rank, ranks, device)
    shard(language_model.model, rank, ranks, members.add_up)
    move(language_model.model, device)
    num_blocks = int(_received(sys.stdin.buffer))
    forward = Forward(language_model, dataclasses.replace(options, num_blocks=num_blocks))
    while message := _received(sys.stdin.buffer):
        forward.advance(decode(message))


def _received(pipe: BinaryIO) -> bytes:
    """The next message; empty when the first rank is gone."""
    length = int.from_bytes(pipe.read(8), "little")
    return pipe.read(length)


if __name__ == "__main__":
    main()

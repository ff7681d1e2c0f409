"""Prompts by a Hugging Face tokenizer: text, chat messages, token ids."""

import json
from pathlib import Path
from typing import Any

from headrace.v1.text_generation_pb2 import Chat, GenerateRequest
from services.common.errors import FailedPrecondition, InvalidArgument
from services.worker.text.model import Prompt


class HuggingFacePrompts:
    """Implements Prompts over the tokenizer's files in a model's folder; no code of the model's is run."""

    def __init__(self, folder: Path) -> None:
        # The generic class takes tokenizer.json as it is, as the engine does; those of families may change it.
        from transformers import PreTrainedTokenizerFast  # noqa: PLC0415  # seconds of imports, only where it is needed

        try:
            self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # whatever the files do to it
            raise FailedPrecondition(f"the tokenizer's files do not load: {error}") from error

    def read(self, request: GenerateRequest) -> Prompt:
        """Token ids; the tokenizer's special tokens come with text, and the template's with chat."""
        match request.WhichOneof("prompt"):
            case "tokens":
                return Prompt(tuple(request.tokens.ids))
            case "chat":
                return Prompt(self._encode(self._templated(request.chat), special=False))
            case _:
                return Prompt(self._encode(request.text, special=True))

    def piece(self, token_id: int) -> str:
        """Special tokens included: they are what was drawn."""
        return str(self.tokenizer.decode([token_id]))

    def _encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _templated(self, chat: Chat) -> str:
        messages = [{"role": message.role, "content": message.content} for message in chat.messages]
        arguments = json.loads(chat.template_arguments_json) if chat.template_arguments_json else {}
        # An answer that has been begun is gone on with, as vLLM's continue_final_message does.
        begun = messages[-1]["role"] == "assistant"
        ending = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **{**ending, **arguments}))
        except Exception as error:  # templates raise what they like
            raise InvalidArgument(f"the model's chat template refuses these messages: {error}") from error

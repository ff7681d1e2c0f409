"""Models from a Hugging Face hub: `hf://org/name`, or `hf://org/name@revision`. HF_ENDPOINT and HF_TOKEN are heeded."""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from headrace.packages.error import PackageError

_REFERENCE = re.compile(r"hf://(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
# What an engine may read. Nothing that is a pickle, or code, is fetched at all.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
# Other formats of the same weights.
_UNWANTED = ["*/*", "consolidated*"]


def fetch_model(reference: str) -> Path:
    """A folder with the model's files; what was fetched before is not fetched again.

    Raises:
        PackageError: no such model, or the hub cannot be reached; it says which hub.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise PackageError(f"{reference}: expected hf://org/name, or hf://org/name@revision")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace" / "hub"
    folder = cache / re.sub(r"[/@]", "--", reference.removeprefix("hf://"))
    try:
        # Into a folder of its own: the hub's shared cache is made of links, which a package must not have.
        snapshot_download(
            match["repository"],
            revision=match["revision"],
            local_dir=folder,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        hub = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
        reason = str(error).strip().partition("\n")[0]
        raise PackageError(f"{reference}: cannot be had from {hub}: {reason}") from error
    return folder

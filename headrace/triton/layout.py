"""Triton's layout of a model repository: MODEL/config.pbtxt, MODEL/VERSION/model.onnx.

Source: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from headrace.inference.model_config_pb2 import ModelConfig, ModelVersionPolicy
from headrace.triton.findings import Finding, Outcome, Refused

CONFIG = "config.pbtxt"
_VERSION = re.compile(r"[1-9][0-9]*")
# "12:3 : Message type … has no field …": how text_format says where.
_PLACE = re.compile(r"^(\d+):(\d+) : (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TritonModel:
    """One model of a repository, its config parsed; `config` is empty where there is no config.pbtxt."""

    name: str
    folder: Path
    config: ModelConfig
    # Ascending; those that Triton would serve.
    versions: list[int]
    findings: list[Finding] = field(default_factory=list)


def model_folders(repository: Path) -> list[Path]:
    """The folders that Triton would look at, by name.

    Raises:
        Refused: there is no such folder, or it is one model's and not a repository of models.
    """
    if not repository.is_dir():
        raise Refused(str(repository), "no such folder; expected a Triton model repository: MODEL/VERSION/model.onnx")
    if (repository / CONFIG).exists():
        raise Refused(str(repository), f"this is one model's folder; give the folder above it, {repository.parent}")
    folders = sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise Refused(str(repository), "there is no model in it; expected MODEL/VERSION/model.onnx")
    return folders


def read_model(folder: Path, every_version: bool) -> TritonModel:
    """Reads config and versions.

    Args:
        every_version: also those that the version policy keeps from being served.

    Raises:
        Refused: the config cannot be read (the line is named), or there is no version.
    """
    path = folder / CONFIG
    config = read_config(path) if path.exists() else ModelConfig()
    if config.name and config.name != folder.name:
        raise Refused("name", f"'{config.name}', but the folder is '{folder.name}'; Triton refuses that, too")
    children = sorted(child.name for child in folder.iterdir() if child.is_dir())
    versions = sorted(int(name) for name in children if _VERSION.fullmatch(name))
    findings = [
        Finding(name, Outcome.LEFT_OUT, "not a version: Triton ignores names that are no plain number, too")
        for name in children
        if not _VERSION.fullmatch(name)
    ]
    if not versions:
        raise Refused(folder.name, "there is no version; expected a folder with a number, such as 1/model.onnx")
    served = versions if every_version else _served(config.version_policy, versions)
    if not served:
        raise Refused("version_policy", f"none of the versions {versions} is served; import them with --all-versions")
    if kept := [number for number in versions if number not in served]:
        numbers = ", ".join(map(str, kept))
        findings.append(
            Finding("version_policy", Outcome.LEFT_OUT, f"Triton does not serve {numbers}; --all-versions imports it")
        )
    return TritonModel(folder.name, folder, config, served, findings)


def read_config(path: Path) -> ModelConfig:
    """Parses config.pbtxt. Raises Refused, with the line."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except text_format.ParseError as error:
        place = _PLACE.match(str(error))
        where, what = (f"{CONFIG}, line {place[1]}, column {place[2]}", place[3]) if place else (CONFIG, str(error))
        raise Refused(where, what.strip()) from error
    except UnicodeDecodeError as error:
        raise Refused(CONFIG, f"expected text in UTF-8: {error}") from error


def _served(policy: ModelVersionPolicy, versions: list[int]) -> list[int]:
    """Triton's default is the latest one."""
    match policy.WhichOneof("policy_choice"):
        case "all":
            return versions
        case "specific":
            return [number for number in versions if number in set(policy.specific.versions)]
        case _:
            return versions[-(policy.latest.num_versions or 1) :]

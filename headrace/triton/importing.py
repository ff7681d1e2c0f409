"""A Triton repository as Headrace packages: OUT/MODEL/VERSION with the model's files and a model.yaml."""

import os
import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headrace.packages import PackageError, read_package
from headrace.packages.manifest_file import read_manifest
from headrace.packages.reading import MANIFEST
from headrace.triton.backends import model_file
from headrace.triton.convert import convert
from headrace.triton.ensemble import convert_ensemble, is_ensemble
from headrace.triton.findings import Finding, Outcome, Refused
from headrace.triton.layout import CONFIG, TritonModel, model_folders, read_model


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """One version, or why there is none."""

    model: str
    # 0: the finding is about the model as a whole.
    version: int
    # None: refused.
    package: Path | None
    findings: list[Finding] = field(default_factory=list)


def import_repository(
    repository: Path, packages: Path, *, every_version: bool = False, link: bool = False
) -> Iterator[ImportedVersion]:
    """Writes a package for each version that Triton would serve, one at a time as the caller asks for the next.

    Args:
        packages: where they go; a version whose folder is there already is refused.
        every_version: also those that the version policy keeps from being served.
        link: do not copy what can be linked: for packages that are thrown away.

    Raises:
        Refused: the folder is no repository. What is wrong with a model is told by its findings.
    """
    models, refused = [], set[str]()
    for folder in model_folders(repository):
        try:
            models.append(read_model(folder, every_version))
        except Refused as error:
            refused.add(folder.name)
            yield ImportedVersion(folder.name, 0, None, [error.finding])
    # Ensembles last: the registry must know the models of their steps.
    for model in sorted(models, key=lambda model: is_ensemble(model.config)):
        for number in model.versions:
            imported = _import_version(model, number, packages / model.name / str(number), link, refused)
            if imported.package is None:
                refused.add(model.name)
            yield imported


def _import_version(
    model: TritonModel, number: int, target: Path, link: bool, refused: Container[str]
) -> ImportedVersion:
    if target.exists():  # a stranger's files are never replaced, those of the repository itself least of all
        found = Finding(str(target), Outcome.REFUSED, "is there already; remove it, or choose another folder")
        return ImportedVersion(model.name, number, None, [*model.findings, found])
    try:
        if is_ensemble(model.config):
            findings = _write_ensemble(model, target, refused)
        else:
            findings = _write(model, number, target, link)
    except Refused as error:
        shutil.rmtree(target, ignore_errors=True)
        return ImportedVersion(model.name, number, None, [*model.findings, error.finding])
    return ImportedVersion(model.name, number, target, [*model.findings, *findings])


def _write_ensemble(model: TritonModel, target: Path, refused: Container[str]) -> list[Finding]:
    manifest, findings = convert_ensemble(model.config, refused)
    target.mkdir(parents=True)
    _dump(target / MANIFEST, manifest)
    try:
        read_package(target)
    except PackageError as error:
        raise Refused(f"{target.name}/", str(error).replace(f"{target}{os.sep}", "")) from error
    return findings


def _write(model: TritonModel, number: int, target: Path, link: bool) -> list[Finding]:
    source = model.folder / str(number)
    entry = model_file(model.config, source)
    shutil.copytree(source, target, copy_function=_link_or_copy if link else shutil.copyfile)
    inside = target / entry.path.relative_to(source)
    if entry.runtime == "torch":  # Triton calls archives model.pt, a name that is kept for pickles here
        inside = inside.rename(inside.with_suffix(".pt2"))
    manifest: dict[str, Any] = {"runtime": entry.runtime, "entry": inside.relative_to(target).as_posix()}
    path = target / MANIFEST
    try:
        _dump(path, manifest)
        spec = read_package(target).spec
        said, findings = convert(model.config, spec)
        _dump(path, manifest | said)
        read_manifest(path).apply(spec)
    except PackageError as error:
        raise Refused(f"{number}/", str(error).replace(f"{target}{os.sep}", "")) from error
    if not (model.folder / CONFIG).exists():
        reason = "there is none, so names, shapes and batch axis are the graph's; batches hold up to"
        findings.append(Finding(CONFIG, Outcome.CHANGED, f"{reason} {spec.batching.max_batch_size or 1} rows"))
    return findings


def _dump(path: Path, manifest: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    """Links are followed, as Triton does."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)

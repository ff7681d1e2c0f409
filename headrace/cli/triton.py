"""import-triton: a Triton model repository becomes packages, and versions in the registry."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from headrace.cli.console import EXIT_BAD_INPUT, exit_codes, out, print_json
from headrace.cli.models import Json, Registry
from headrace.client.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from headrace.client.registry import DEFAULT_ADDRESS, RegistryClient
from headrace.triton.findings import Finding, Outcome, Refused
from headrace.triton.importing import ImportedVersion, import_repository

_COLOURS = {Outcome.CHANGED: "cyan", Outcome.LEFT_OUT: "yellow", Outcome.REFUSED: "red"}


@dataclass(frozen=True, slots=True)
class _Row:
    """What has become of one version."""

    model: str
    version: int
    state: str
    findings: list[Finding]


def import_triton(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="A Triton model repository: MODEL/VERSION/…")],
    push: Annotated[bool, typer.Option("--push", help="Publish each version under its own number.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Keep the packages: FOLDER/MODEL/VERSION.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would come of it.")] = False,
    every_version: Annotated[
        bool, typer.Option("--all-versions", help="Also those that the version policy keeps from being served.")
    ] = False,
    registry: Registry = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Convert a Triton model repository, and say what cannot be carried over."""
    push, folder = push and not dry_run, None if dry_run else folder
    rows = []
    with exit_codes(), RegistryClient(registry) as client, _packages(folder) as packages:
        try:
            for imported in import_repository(repository, packages, every_version=every_version, link=folder is None):
                state = "refused" if imported.package is None else "written" if folder else "can be imported"
                rows.append(_pushed(client, imported) if push and imported.package else _row(imported, state))
        except Refused as error:
            raise InvalidArgumentError(str(error)) from error
    if as_json:
        print_json([_plain(row) for row in rows])
    else:
        _show(rows, push or folder is not None)
    if any(row.state == "refused" for row in rows):
        raise typer.Exit(EXIT_BAD_INPUT)


@contextmanager
def _packages(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="headrace-triton-") as temporary:
        yield Path(temporary)


def _row(imported: ImportedVersion, state: str) -> _Row:
    return _Row(imported.model, imported.version, state, imported.findings)


def _pushed(client: RegistryClient, imported: ImportedVersion) -> _Row:
    """A version that is there already stays as it is: an import that broke off can be run again."""
    assert imported.package is not None
    if imported.version in _published(client, imported.model):
        return _row(imported, "there already")
    try:
        client.push(imported.model, imported.package, version=imported.version)
    except (InvalidArgumentError, NotFoundError, FailedPreconditionError) as error:
        imported.findings.append(Finding("push", Outcome.REFUSED, str(error)))
        return _row(imported, "refused")
    return _row(imported, "pushed")


def _published(client: RegistryClient, name: str) -> set[int]:
    try:
        return {version.version for version in client.model(name).versions}
    except NotFoundError:
        return set()


def _show(rows: list[_Row], kept: bool) -> None:
    versions = Table("model", "version", "state")
    warnings = Table(title="not carried over as it was", title_justify="left")
    for heading in ("model", "setting", "", "what becomes of it"):
        warnings.add_column(heading, overflow="fold")
    told = set()
    for row in rows:
        colour = "red" if row.state == "refused" else "green"
        versions.add_row(escape(row.model), str(row.version or ""), f"[{colour}]{row.state}[/{colour}]")
        for finding in row.findings:
            if (row.model, finding) not in told:  # most are about the config, the same for each version
                told.add((row.model, finding))
                outcome = f"[{_COLOURS[finding.outcome]}]{finding.outcome}[/]"
                warnings.add_row(escape(row.model), escape(finding.setting), outcome, escape(finding.reason))
    out().print(versions)
    if told:
        out().print(warnings)
    if not kept:
        out().print("nothing was written: --push publishes, --out FOLDER keeps the packages", highlight=False)


def _plain(row: _Row) -> dict[str, object]:
    findings = [
        {"setting": finding.setting, "outcome": str(finding.outcome), "reason": finding.reason}
        for finding in row.findings
    ]
    return {"model": row.model, "version": row.version, "state": row.state, "findings": findings}

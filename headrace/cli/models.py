"""push, models, alias, unload, load, delete, gc: what the registry holds."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from headrace.cli.console import err, exit_codes, out, print_json
from headrace.client.registry import DEFAULT_ADDRESS, RegistryClient
from headrace.v1.model_pb2 import Model, TensorSpec

Registry = Annotated[str, typer.Option("--registry", envvar="HEADRACE_REGISTRY", help="host:port of the registry.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]


def push(
    name: Name,
    path: Annotated[
        str, typer.Argument(help="A .onnx file, a .pt2 archive, a folder (Hugging Face's too), or hf://org/name.")
    ],
    version: Annotated[int, typer.Option(help="Publish as this very number; 0 takes the next.")] = 0,
    registry: Registry = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Publish a model as its next version."""
    bar = Progress(
        TextColumn("pushing"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err(), transient=True
    )
    with exit_codes(), RegistryClient(registry) as client, bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        published = client.push(name, path, version=version, progress=progress)
    if as_json:
        print_json({"name": published.name, "version": published.version})
        return
    spec = published.spec
    if spec.HasField("text"):
        length = f", {spec.text.max_model_len} tokens of context" if spec.text.max_model_len else ""
        out().print(
            f"[green]published[/green] [bold]{name}[/bold] version {published.version} ({spec.runtime}{length})"
        )
        out().print(f'  try: headrace generate {name} "Once upon a time"', highlight=False, markup=False)
        return
    inputs, outputs = ", ".join(map(_tensor, spec.inputs)), ", ".join(map(_tensor, spec.outputs))
    batch = f"batches of up to {spec.batching.max_batch_size}" if spec.batching.max_batch_size else "no batch axis"
    out().print(f"[green]published[/green] [bold]{name}[/bold] version {published.version} ({spec.runtime}, {batch})")
    out().print(f"  {inputs} → {outputs}", highlight=False, markup=False)


def list_models(
    name: Annotated[str, typer.Argument(help="One model only.")] = "",
    registry: Registry = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """List models and their versions."""
    with exit_codes(), RegistryClient(registry) as client:
        found = [client.model(name)] if name else client.models()
    if as_json:
        print_json([MessageToDict(model, preserving_proto_field_name=True) for model in found])
        return
    table = Table("model", "version", "aliases", "runtime", "inputs", "outputs", "size", "published")
    for model in found:
        _add_rows(table, model)
    out().print(table if found else "no models yet; publish one with: headrace push NAME PATH")


def alias(
    name: Name,
    alias_name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as production.")],
    version: Annotated[int, typer.Argument(help="The version it points at; 0 removes the alias.")],
    registry: Registry = DEFAULT_ADDRESS,
) -> None:
    """Point an alias at a version."""
    with exit_codes(), RegistryClient(registry) as client:
        if version:
            client.set_alias(name, alias_name, version)
        else:
            client.delete_alias(name, alias_name)


def unload(name: Name, registry: Registry = DEFAULT_ADDRESS) -> None:
    """Take a model out of service; its versions stay."""
    with exit_codes(), RegistryClient(registry) as client:
        client.unload(name)


def load(name: Name, registry: Registry = DEFAULT_ADDRESS) -> None:
    """Bring an unloaded model back."""
    with exit_codes(), RegistryClient(registry) as client:
        client.load(name)


def delete(
    name: Name,
    version: Annotated[int, typer.Option(help="This version only; 0 deletes the whole model.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    registry: Registry = DEFAULT_ADDRESS,
) -> None:
    """Delete a version, or a whole model."""
    what = f"version {version} of '{name}'" if version else f"all versions of '{name}'"
    if not yes:
        typer.confirm(f"Delete {what}?", abort=True)
    with exit_codes(), RegistryClient(registry) as client:
        if version:
            client.delete_version(name, version)
        else:
            client.delete_model(name)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    grace_hours: Annotated[float, typer.Option(min=0, help="Files younger than this stay.")] = 24.0,
    registry: Registry = DEFAULT_ADDRESS,
    as_json: Json = False,
) -> None:
    """Remove files that no version uses any more; pushes may go on meanwhile."""
    with exit_codes(), RegistryClient(registry) as client:
        found = client.collect_garbage(grace_seconds=round(grace_hours * 3600), dry_run=dry_run)
    if as_json:
        print_json(MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
        return
    megabytes = sum(blob.size for blob in found.collected) / 1e6
    done = "would be removed" if dry_run else "removed"
    out().print(
        f"{len(found.collected)} files {done} ({megabytes:,.1f} MB); {found.used} are used, {found.young} younger than"
        f" {grace_hours:g} h" + (f", {found.left} left for the next time" if found.left else ""),
        highlight=False,
    )


def _add_rows(table: Table, model: Model) -> None:
    for version in reversed(model.versions):
        table.add_row(
            model.name,
            str(version.version),
            ", ".join(_marks(model, version.version)),
            version.spec.runtime,
            ", ".join(map(_tensor, version.spec.inputs)),
            ", ".join(map(_tensor, version.spec.outputs)),
            f"{sum(file.size for file in version.files) / 1024:,.0f} KiB",
            datetime.fromtimestamp(version.created_unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        )


def _marks(model: Model, version: int) -> list[str]:
    names = sorted(name for name, number in model.aliases.items() if number == version)
    return [*names, "(unloaded)"] if model.unloaded else names


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.datatype}{list(tensor.shape)}"

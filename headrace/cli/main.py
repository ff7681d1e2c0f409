"""`headrace`: the command line put together."""

import typer

from headrace.cli import inference, jobs, keys, models, rollouts, scale, security, status, text, triton, up

app = typer.Typer(
    name="headrace",
    help="Model serving that never loses an accepted request.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.callback()(security.tls)
app.command()(up.up)
app.command()(up.serve)
app.command()(models.push)
app.command("models")(models.list_models)
app.command()(models.alias)
app.command()(models.unload)
app.command()(models.load)
app.command()(models.delete)
app.command()(models.gc)
app.command()(triton.import_triton)
app.command()(rollouts.promote)
app.command()(rollouts.rollback)
app.command()(inference.infer)
app.command()(text.generate)
app.command()(text.chat)
app.add_typer(jobs.app, name="job")
app.command()(status.status)
app.command()(scale.scale)
app.command()(keys.key)

if __name__ == "__main__":
    app()

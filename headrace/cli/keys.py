"""key: an API key for a tenant."""

from typing import Annotated

import typer

from headrace.cli.console import err, print_json
from headrace.keys import hash_line, new_key


def key(
    tenant: Annotated[str, typer.Argument(help="Whose key it is to be; for the text only.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Make an API key. It is shown once: the tenants file holds its hash only."""
    made = new_key()
    if as_json:
        print_json({"tenant": tenant, "key": made, "hash": hash_line(made)})
        return
    print(made)
    err().print(
        f"the key of '{tenant}' stands above, and nowhere else. Put its hash into the tenants file, which may be open:",
        f"  {tenant}: {{keys: ['{hash_line(made)}']}}",
        sep="\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

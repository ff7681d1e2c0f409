"""Options before the command: how to speak TLS, for clients and for all that `headrace up` starts."""

import os
from typing import Annotated

import typer

Ca = Annotated[str, typer.Option("--tls-ca", envvar="HEADRACE_TLS_CA", help="Issuers whose servers are believed: TLS.")]
Cert = Annotated[str, typer.Option("--tls-cert", envvar="HEADRACE_TLS_CERT", help="The certificate to show.")]
Key = Annotated[str, typer.Option("--tls-key", envvar="HEADRACE_TLS_KEY", help="Its private key.")]
ClientCa = Annotated[
    str,
    typer.Option(
        "--tls-client-ca", envvar="HEADRACE_TLS_CLIENT_CA", help="Issuers of callers' certificates (up, serve)."
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--tls-name", envvar="HEADRACE_TLS_NAME", help="What servers' certificates must be for, if not their host."
    ),
]
StoreCa = Annotated[
    str,
    typer.Option(
        "--tls-store-ca", envvar="HEADRACE_TLS_STORE_CA", help="Issuers of the S3 store's certificate (up, serve)."
    ),
]


def tls(
    ca: Ca = "", cert: Cert = "", key: Key = "", client_ca: ClientCa = "", name: Name = "", store_ca: StoreCa = ""
) -> None:
    """Model serving that never loses an accepted request."""
    # By the environment, where clients look and which the processes of `headrace up` inherit.
    said = {"CA": ca, "CERT": cert, "KEY": key, "CLIENT_CA": client_ca, "NAME": name, "STORE_CA": store_ca}
    os.environ.update({f"HEADRACE_TLS_{which}": value for which, value in said.items() if value})

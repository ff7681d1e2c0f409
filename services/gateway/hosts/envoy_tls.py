"""TLS at Envoy's listener, by secrets that it reads from files and reads again when they are replaced. Pure.

Envoy would take the operator's files themselves, but looks again only when a file is moved into place, and checks each
by itself. So it gets files of ours, written when the operator's have been found good as a whole.
"""

import json
from typing import Any

from services.common.errors import Internal

OWN, CALLERS = "own.json", "callers.json"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def secure(config: dict[str, Any], folder: str, *, ask_callers: bool) -> None:
    """Changes a configuration in place: callers must speak TLS.

    Args:
        folder: where the files of `secrets` lie.
        ask_callers: they must show a certificate.
    """
    config["node"] = {"id": "gateway", "cluster": "headrace"}  # Envoy reads no secrets without a name
    common: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_from_file(folder, OWN)],
    }
    if ask_callers:
        common["validation_context_sds_secret_config"] = _from_file(folder, CALLERS)
    context = {
        "@type": f"{_TLS}.DownstreamTlsContext",
        "common_tls_context": common,
        "require_client_certificate": ask_callers,
    }
    chains = [chain for listener in config["static_resources"]["listeners"] for chain in listener["filter_chains"]]
    if not chains:
        raise Internal("pyvoy's configuration has no listener to put TLS on")
    for chain in chains:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}


def secrets(*, chain: bytes, key: bytes, client_ca: bytes) -> dict[str, str]:
    """Files by name, all in PEM before."""
    own = {"certificate_chain": _inline(chain), "private_key": _inline(key)}
    files = {OWN: _secret(OWN, "tls_certificate", own)}
    if client_ca:
        files[CALLERS] = _secret(CALLERS, "validation_context", {"trusted_ca": _inline(client_ca)})
    return files


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_string": pem.decode()}


def _secret(name: str, kind: str, content: dict[str, Any]) -> str:
    return json.dumps({"resources": [{"@type": f"{_TLS}.Secret", "name": name, kind: content}]})


def _from_file(folder: str, name: str) -> dict[str, Any]:
    source = {"path_config_source": {"path": f"{folder}/{name}"}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}

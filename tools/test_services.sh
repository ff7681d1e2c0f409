#!/bin/sh
# System packages that the tests run as processes of their own: nginx in front of a single replica, RabbitMQ as the
# broker of clusters, Prometheus for dashboards and alerts, a static busybox as the image that the tests of the Docker
# orchestrator run, Chromium to look at the console. The packages must not start services of their own: the tests do, on
# free ports.
set -eu
missing=""
for package in nginx rabbitmq-server prometheus busybox-static chromium; do
  command -v "${package%-static}" >/dev/null || [ -x "/usr/sbin/$package" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing:$missing; install as root: apt-get install$missing" >&2
  exit 1
fi
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086  # one word a package
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null

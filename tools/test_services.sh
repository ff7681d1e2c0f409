#!/bin/sh
# System packages that the tests run as processes of their own: nginx, which stands in front of a single replica.
set -eu
for package in nginx; do
  if ! command -v "$package" >/dev/null && ! [ -x "/usr/sbin/$package" ]; then
    [ "$(id -u)" = 0 ] || { echo "$package is missing; install it as root: apt-get install $package" >&2; exit 1; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  fi
done

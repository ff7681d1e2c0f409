#!/bin/sh
# Makes the passwords that compose.yaml needs, at random, once: existing ones are kept. The folder is this user's own;
# the files in it are readable, because services inside containers run as other users.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
random() { od -An -N18 -tx1 /dev/urandom | tr -d ' \n'; }
[ -e secrets/headrace_broker ] || {
  password=$(random)
  printf 'default_user = headrace\ndefault_pass = %s\n' "$password" >secrets/rabbitmq.conf
  printf 'amqp://headrace:%s@rabbitmq:5672/' "$password" >secrets/headrace_broker
}
# The same with TLS: tls.yaml.
[ -e secrets/headrace_broker_tls ] || sed 's,^amqp:,amqps:,; s,:5672/$,:5671/,' secrets/headrace_broker >secrets/headrace_broker_tls
[ -e secrets/s3_credentials ] || {
  printf 'headrace-registry' >secrets/s3_user
  random >secrets/s3_password
  printf '[default]\naws_access_key_id = headrace-registry\naws_secret_access_key = %s\n' "$(cat secrets/s3_password)" \
    >secrets/s3_credentials
}
[ -e secrets/grafana_password ] || random >secrets/grafana_password
find secrets -maxdepth 1 -type f -exec chmod 444 {} +

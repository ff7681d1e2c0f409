#!/bin/sh
# Makes what tls.yaml needs, into secrets/tls: an issuer, once, and for each service a certificate of its own, good for 90
# days. Run it again to renew them while everything runs: processes take new files into use by themselves.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets/tls
chmod 700 secrets
cd secrets/tls
new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
[ -e ca.key ] || {
  new_key ca.key
  chmod 400 ca.key
  openssl req -x509 -key ca.key -days 3650 -subj /CN=headrace-compose -out ca.pem
}
for service in registry gateway worker autoscaler jobs single balancer rabbitmq minio collector prometheus client; do
  mkdir -p "$service"
  cp -f ca.pem "$service/ca.pem"
  new_key "$service/new.key"
  # All go by one name (HEADRACE_TLS_NAME), since replicas come and go; what is not ours by that of its host.
  openssl req -new -key "$service/new.key" -subj "/CN=$service" \
    -addext "subjectAltName=DNS:headrace.internal,DNS:$service,DNS:localhost,IP:127.0.0.1" -out "$service/new.csr"
  openssl x509 -req -in "$service/new.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -copy_extensions copy \
    -out "$service/new.pem" 2>/dev/null
  # Readable, because services inside containers run as other users; the folder above is this user's own.
  chmod 444 "$service/new.key" "$service/new.pem"
  mv -f "$service/new.key" "$service/own.key"
  mv -f "$service/new.pem" "$service/own.pem"
  rm "$service/new.csr"
  [ "$service" != minio ] || { cp -f minio/own.key minio/private.key && cp -f minio/own.pem minio/public.crt; } # as it wants them
done

#!/bin/sh
# A certificate authority and certificates for nodes and clients, with openssl.
#
#   certificates.sh DIR ca                          DIR/ca.pem, DIR/ca.key (keep the key elsewhere)
#   certificates.sh DIR node NAME HOST[,HOST...]    DIR/NAME.pem, DIR/NAME.key: server and client
#   certificates.sh DIR client NAME                 DIR/NAME.pem, DIR/NAME.key: client alone
#
# A HOST is a DNS name or an IP address under which the node is reached; 127.0.0.1 and localhost are
# added. Nodes and clients get 90 days, the authority 10 years. DAYS=N gives another number of days.
set -eu
umask 077

usage() { sed -n '2,/^set/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2; exit 2; }
[ $# -ge 2 ] || usage
dir=$1 what=$2
mkdir -p "$dir"

key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }

sign() { # NAME EXTENSIONS
  key "$dir/$1.key"
  openssl req -new -key "$dir/$1.key" -subj "/CN=$1" |
    openssl x509 -req -sha256 -days "${DAYS:-90}" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
      -set_serial "0x$(openssl rand -hex 16)" -extfile "$2" -out "$dir/$1.pem" 2>/dev/null
  openssl verify -CAfile "$dir/ca.pem" "$dir/$1.pem" >/dev/null
}

extensions=$(mktemp)
trap 'rm -f "$extensions"' EXIT
case $what in
  ca)
    [ $# = 2 ] || usage
    [ ! -e "$dir/ca.key" ] || { echo "$dir/ca.key is there already" >&2; exit 1; }
    key "$dir/ca.key"
    openssl req -x509 -new -sha256 -key "$dir/ca.key" -days "${DAYS:-3650}" -subj "/CN=keyviz CA" \
      -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$dir/ca.pem"
    ;;
  node)
    [ $# = 4 ] || usage
    names="DNS:localhost,IP:127.0.0.1"
    for host in $(echo "$4" | tr ',' ' '); do
      case $host in
        *[!0-9.:a-fA-F]*) names="$names,DNS:$host" ;;
        *[.:]*) names="$names,IP:$host" ;;
        *) names="$names,DNS:$host" ;;
      esac
    done
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$names" >"$extensions"
    sign "$3" "$extensions"
    ;;
  client)
    [ $# = 3 ] || usage
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n' >"$extensions"
    sign "$3" "$extensions"
    ;;
  *) usage ;;
esac

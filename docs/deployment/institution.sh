#!/usr/bin/env bash
# An institution's side of a federation: institution.sh COMMAND, explained in docs/deployment.md.
#
#   key         make this institution's key pair and print the public key to send to the coordinator (once)
#   check       read the site file and its imagery as training will
#   supernode   connect to the coordinator and take part in its runs (keep it running)
set -euo pipefail

# What to change: set these in the environment, or here.
: "${SUPERLINK:=127.0.0.1:8443}"                      # address of the coordinator
: "${CA:=$HOME/.fedsense/institution/ca.crt}"         # the certificate that the coordinator gave you
: "${SITE:=$HOME/.fedsense/institution/site.toml}"    # your site file: which imagery, from which sensor
: "${STATE:=$HOME/.fedsense/institution/state}"       # key, chips, and state between rounds
: "${PORT:=9094}"                                     # port on 127.0.0.1 for Flower's own processes
# export CUDA_VISIBLE_DEVICES=0                       # which GPU; unset: the first, or the CPU where there is none

export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
umask 077                                             # the key is for this user alone
mkdir -p "$STATE"
KEY=$STATE/key

key() {
    ssh-keygen -q -t ecdsa -b 384 -N "" -f "$KEY" -C fedsense
    echo "send this file to the coordinator: $KEY.pub"
}

check() {
    fedsense data check "$SITE" --state "$STATE"
}

supernode() {
    export FLWR_HOME=$STATE/flower
    mkdir -p "$FLWR_HOME"
    cd "$FLWR_HOME"                                   # nothing here can be imported in place of the app
    exec flower-supernode --superlink "$SUPERLINK" --root-certificates "$CA" \
        --auth-supernode-private-key "$KEY" --host 127.0.0.1 --port "$PORT" \
        --node-config "site=\"$SITE\" state-dir=\"$STATE\""
}

case ${1:-} in
    key | check | supernode) "$@" ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

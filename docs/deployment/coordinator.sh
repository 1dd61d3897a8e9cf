#!/usr/bin/env bash
# The coordinator's side of a federation: coordinator.sh COMMAND, explained in docs/deployment.md.
#
#   certificates            make a private certificate authority, the server's certificate and the SuperExec secret (once)
#   superlink               serve: the one address that institutions connect to (keep it running)
#   superexec               run the ServerApp of each run (keep it running, beside superlink)
#   admit NAME KEY.pub      let the institution with this public key take part
#   members                 list the institutions that were admitted and whether they are connected
#   run [KEY=VALUE ...]     start a training run, follow it, report it, and end with a non-zero status if it failed
set -euo pipefail

# What to change: set these in the environment, or here.
: "${HOST:=127.0.0.1}"                                # address to listen on, one of NAMES
: "${PORT:=8443}"                                     # port of the SuperLink
: "${NAMES:=DNS:localhost,IP:127.0.0.1}"              # every name and address under which institutions reach it
: "${STATE:=$HOME/.fedsense/coordinator}"             # certificates, secret, database, Flower's files
: "${RUN_FOLDER:=$HOME/.fedsense/runs/deployment}"    # what the run leaves: metrics, checkpoints, encoder, report
: "${APP:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"     # the clone of FedSense
: "${CONNECTION:=local-deployment}"                   # name of the coordinator in flower.toml

export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
umask 077                                             # keys and secrets are for this user alone
mkdir -p "$STATE"
CERTIFICATES=$STATE/certificates
SECRET=$STATE/superexec.secret

certificates() {
    mkdir "$CERTIFICATES"                             # fails rather than replace keys that institutions trust
    cd "$CERTIFICATES"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -days 3650 -sha384 \
        -keyout ca.key -out ca.crt -subj "/CN=FedSense certificate authority" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -sha384 \
        -keyout server.key -out server.csr -subj "/CN=FedSense coordinator"
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -sha384 -out server.pem \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$NAMES")
    head -c 48 /dev/urandom > "$SECRET"
    echo "give ca.crt to every institution: $CERTIFICATES/ca.crt"
}

superlink() {
    export FLWR_HOME=$STATE/superlink
    exec flower-superlink --host "$HOST" --port "$PORT" \
        --ssl-certfile "$CERTIFICATES/server.pem" --ssl-keyfile "$CERTIFICATES/server.key" \
        --ssl-ca-certfile "$CERTIFICATES/ca.crt" --enable-supernode-auth \
        --isolation process --superexec-auth-secret-file "$SECRET" \
        --database "$STATE/superlink.db" --disable-runtime-dependency-installation
}

superexec() {
    export FLWR_HOME=$STATE/superexec
    mkdir -p "$FLWR_HOME"
    cd "$FLWR_HOME"                                   # nothing here can be imported in place of the app
    exec flower-superexec --runtime-api-address "$HOST:$PORT" \
        --root-certificates "$CERTIFICATES/ca.crt" --superexec-auth-secret-file "$SECRET"
}

connect() {                                           # flower.toml with this machine's address and certificate
    export FLWR_HOME=$STATE/cli
    mkdir -p "$FLWR_HOME"
    sed -e "s|127.0.0.1:8443|$HOST:$PORT|" -e "s|/etc/fedsense/ca.crt|$CERTIFICATES/ca.crt|" \
        "$APP/flower.toml" > "$FLWR_HOME/config.toml"
}

admit() {
    connect
    flwr supernode register "$2" "$CONNECTION" --name "$1"
}

members() {
    connect
    flwr supernode list "$CONNECTION"
}

run() {
    connect
    cd "$FLWR_HOME"
    local pair value id status log=run.log clip=(aggregation.clip=median)
    [[ " $* " != *" aggregation.clip="* ]] || clip=()     # institutions that do not know each other: bounded, unless you say
    for pair in "run.folder=$RUN_FOLDER" "${clip[@]}" "$@"; do     # words need quotes in TOML, numbers and truth values must have none
        value=${pair#*=}
        [[ $value =~ ^(true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?|\".*\")$ ]] || value="\"$value\""
        printf '%s = %s\n' "${pair%%=*}" "$value"
    done > run.toml
    flwr run "$APP" "$CONNECTION" --stream --run-config run.toml 2>&1 | tee "$log" || true
    id=$(sed -n 's/.*Successfully started run \([0-9]*\).*/\1/p' "$log" | head -n 1)
    [[ -n $id ]] || { echo "the run did not start" >&2; return 1; }
    # `flwr run` ends with 0 whatever became of the run, and its log may break off: only the status tells.
    until status=$(flwr list "$CONNECTION" --run-id "$id" --format json) && [[ $status == *'"finished:'* ]]; do
        sleep 5
    done
    if [[ $status != *'"finished:completed"'* ]]; then
        sed -n 's/.*"status-details": /the run failed: /p' <<< "$status" >&2
        return 1
    fi
    echo "the run is complete: $RUN_FOLDER"
    # From the run's folder: what Flower sends to the nodes has no report pages in it.
    [[ " $* " == *" run.report=false "* ]] || fedsense report "$RUN_FOLDER" || echo "the run has no report" >&2
}

case ${1:-} in
    certificates | superlink | superexec | admit | members | run) "$@" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

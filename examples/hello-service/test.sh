#!/bin/sh
# Starts hello-service on a port of its own and checks its answers.
set -eu
cd "$(dirname "$0")"
port=${TEST_PORT:-18080}
./hello-service "$port" &
server=$!
trap 'kill $server' EXIT

failures=0
check() { # check WHAT EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then
    echo "ok    $1"
  else
    echo "FAIL  $1: expected '$2', got '$3'"
    failures=$((failures + 1))
  fi
}
get() { curl -s --max-time 10 --retry 20 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port$1"; }
status() { curl -s --max-time 10 -o /dev/null -w '%{http_code}' "$@"; }

check 'health says ok' ok "$(get /health)"
check 'the greeting names the host' "hello from $(hostname)" "$(get /)"
check 'a sum is added up' 42 "$(get '/sum?a=40&b=2')"
check 'a negative sum is added up' -3 "$(get '/sum?a=-5&b=2')"
check 'an unknown path is not found' 404 "$(status "http://127.0.0.1:$port/nowhere")"
check 'only GET is served' 405 "$(status -X POST "http://127.0.0.1:$port/")"
[ "$failures" = 0 ] && echo 'all tests passed'
exit "$failures"

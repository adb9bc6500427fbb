#!/bin/bash
# What ./quickstart runs inside the sandbox: builds and tests the service, builds its Docker image, runs it, talks to it,
# and leaves report.md in the workspace. Needs no network.
set -euo pipefail
cd "$(dirname "$0")"

now_ms() { date +%s%3N; }
rows=()
timed() { # timed NAME COMMAND...
  local name=$1 start
  shift
  echo "== $name"
  start=$(now_ms)
  "$@"
  rows+=("| $name | $(($(now_ms) - start)) |")
}
docker_ready() {
  for _ in $(seq 120); do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  docker info
}
image() {
  rm -rf context
  mkdir context
  cp /bin/busybox hello-service context/
  docker build --quiet --tag hello-service .
}
start_container() { docker run --detach --name hello --publish 8080:8080 hello-service; }
talk() {
  greeting=$(curl -sS --fail --max-time 60 --retry 30 --retry-connrefused --retry-delay 1 http://127.0.0.1:8080/)
  [ "$(curl -sS --fail --max-time 60 'http://127.0.0.1:8080/sum?a=40&b=2')" = 42 ]
  inside=$(docker exec hello /bin/busybox id -u)
  echo "$greeting"
}
tidy() {
  docker rm --force hello >/dev/null 2>&1 || true
  rm -rf context
}
trap tidy EXIT

make -s clean
timed 'make' make
timed 'tests' make -s test
timed 'Docker answers' docker_ready
timed 'docker build' image
timed 'docker run' start_container
timed 'curl through the published port, docker exec' talk

{
  echo '# hello-service, built and run in a sandbox'
  echo
  echo "- kernel: $(uname -sr), host name $(hostname), user $(id -un)"
  echo "- Docker: $(docker version --format '{{.Server.Version}}'), runtime $(docker info --format '{{.DefaultRuntime}}')"
  echo "- the container answered: \"$greeting\" (uid $inside in it)"
  echo
  echo '| step | ms |'
  echo '|---|---|'
  printf '%s\n' "${rows[@]}"
} >report.md
echo "report.md written"

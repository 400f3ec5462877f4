#!/usr/bin/env bash
# packages.sh run|test: make sure that the programs which pip cannot bring are there.
# run needs Python 3.11 with venv; test needs real servers too. Where something is missing and this is
# Debian (or like it) and root, apt-get installs it; else one sentence says what to install.
set -euo pipefail

python=${PYTHON:-python3}
missing=()

need() { # need PACKAGE COMMAND...: the package that brings one of the commands
  local package=$1 command
  shift
  for command in "$@"; do
    if command -v "$command" >/dev/null 2>&1; then return; fi
  done
  missing+=("$package")
}

need_python() {
  if ! command -v "$python" >/dev/null 2>&1; then
    missing+=(python3 python3-venv)
  elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    missing+=(python3-venv)
  fi
}

need_servers() {
  need redis-server redis-server valkey-server
  need mariadb-server mariadbd mysqld
  need postgresql postgres "$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | tail -n 1 || true)"
  need curl curl
}

case ${1:-} in
  run) need_python ;;
  test) need_python; need_servers ;;
  *) echo "usage: packages.sh run|test" >&2; exit 2 ;;
esac

# mariadbd and others live in sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin
still=()
for package in "${missing[@]}"; do
  case $package in
    mariadb-server) command -v mariadbd mysqld >/dev/null 2>&1 || still+=("$package") ;;
    *) still+=("$package") ;;
  esac
done

if [ ${#still[@]} -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Debian packages: ${still[*]} …"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${still[@]}" >/dev/null
  elif [ "$1" = run ]; then
    echo "Python 3.11 or newer with venv is missing. Install it first, for example: sudo apt-get install ${still[*]}" >&2
    exit 1
  else
    echo "These are missing, and tests that need them are skipped: ${still[*]}. To run all: sudo apt-get install ${still[*]}" >&2
  fi
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "$python is older than 3.11. Name a newer one: make PYTHON=python3.12 …" >&2
  exit 1
fi

#!/usr/bin/env bash
# packages.sh run|test: make sure that the programs which pip cannot bring are there.
# run needs Python 3.11 with venv; test needs real servers too. Where something is missing and this is
# Debian (or like it) and root, apt-get installs it; else one sentence says what to install.
# SpiceDB, which no Debian has, is built by spicedb.sh.
set -euo pipefail

python=${PYTHON:-python3}
missing=()
PATH=$PATH:/usr/sbin:/sbin # mariadbd lives there, and not everybody's PATH has it

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
  need openssh-server sshd
  # Tests of networks that fail, in namespaces of their own.
  need iproute2 ip
  need nftables nft
  # Tests of wrong clocks compile a library of fifty lines.
  if ! command -v cc >/dev/null 2>&1; then missing+=(gcc libc6-dev); fi
}

case ${1:-} in
  run) need_python ;;
  test) need_python; need_servers ;;
  *) echo "usage: packages.sh run|test" >&2; exit 2 ;;
esac

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Debian packages: ${missing[*]} …"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  elif [ "$1" = run ]; then
    echo "Python 3.11 or newer with venv is missing. Install it first, for example: sudo apt-get install ${missing[*]}" >&2
    exit 1
  else
    echo "These are missing, and tests that need them are skipped: ${missing[*]}. To run all: sudo apt-get install ${missing[*]}" >&2
  fi
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "$python is older than 3.11. Name a newer one: make PYTHON=python3.12 …" >&2
  exit 1
fi

if [ "$1" = test ] && ! "$(dirname "$0")/spicedb.sh" >/dev/null; then
  echo "Tests that need SpiceDB are skipped." >&2
fi

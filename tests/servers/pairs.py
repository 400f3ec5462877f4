"""A primary and its standby behind one address, as a site with two database servers has them.

Clients know only `url`; what it leads to changes with the failover, as a virtual IP would. The
standby follows through a line of its own, which can be cut: then the newest commits are on the
primary alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import pymysql
from pymysql.cursors import DictCursor

from tests.servers.forwarder import Forwarder
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL, run_as_postgres
from tests.servers.programs import running
from tests.waiting import wait_until

Kind = Literal["postgresql", "mariadb"]
ROLE = "scheduler"  # what the scheduler logs in as: it owns its database and is nothing else
PASSWORD = "p:a ss@word"
DATABASE = "campaign"
_CATCHES_UP_WITHIN_S = 60.0


class Pair(ABC):
    """Two servers, of which one takes writes; `running()` starts all."""

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        """`synchronous`: a commit is answered only when the standby has it."""
        self.folder = folder
        self.synchronous = synchronous
        self.address = Forwarder()  # where clients go
        self.line = Forwarder()  # where the standby goes
        self.primary: PostgreSQL | MariaDB
        self.standby: PostgreSQL | MariaDB

    @contextmanager
    def running(self) -> Iterator[Pair]:
        """Both servers and the database, for the block."""
        with ExitStack() as stack:
            for forwarder in (self.address, self.line):
                stack.enter_context(forwarder.running())
            stack.enter_context(running(self.primary))
            self.line.lead_to(self.primary.port)
            self._prepare()
            stack.enter_context(running(self._new_standby()))
            self._follow()
            self.wait_until_caught_up()
            self.address.lead_to(self.primary.port)
            yield self

    @property
    @abstractmethod
    def url(self) -> str:
        """The DATABASE_URL of the one address."""

    def cut_line(self) -> None:
        """The standby hears of no further commit."""
        self.line.cut()

    def wait_until_caught_up(self) -> None:
        """Wait until the standby has every commit that the primary has now."""
        position = self._position()
        wait_until(
            lambda: self._standby_has(position),
            timeout_s=_CATCHES_UP_WITHIN_S,
            message="the standby to catch up",
        )

    def fail_over(self) -> None:
        """The primary dies as by a power cut; the standby takes writes; the address leads there."""
        self.address.cut()
        self.line.cut()
        self.primary.server.kill()
        self._promote()
        self.primary, self.standby = self.standby, self.primary
        self.address.lead_to(self.primary.port)

    @abstractmethod
    def _prepare(self) -> None:
        """What the primary needs before it has a standby: the role, its database, a slot."""

    @abstractmethod
    def _new_standby(self) -> PostgreSQL | MariaDB: ...

    @abstractmethod
    def _follow(self) -> None:
        """Let the standby follow, and the primary wait for it where that is asked for."""

    @abstractmethod
    def _position(self) -> str: ...

    @abstractmethod
    def _standby_has(self, position: str) -> bool: ...

    @abstractmethod
    def _promote(self) -> None: ...


class _Standby(PostgreSQL):
    """A copy of a running primary, which goes on following it."""

    def __init__(self, folder: Path, line: int) -> None:
        self._line = line
        super().__init__(folder)

    def _fill(self) -> None:
        self.data.rmdir()  # pg_basebackup makes it again, with the rights that it should have
        self.data.parent.chmod(0o777)
        source = f"host=127.0.0.1 port={self._line} user=postgres application_name=standby"
        words = ["--create-slot", "--slot=standby", "--write-recovery-conf", "--no-sync"]
        words += ["--checkpoint=fast"]
        run_as_postgres(
            "pg_basebackup",
            f"--pgdata={self.data}",
            f"--dbname={source}",
            *words,
        )


class PostgreSQLPair(Pair):
    """Streaming replication with a slot."""

    primary: PostgreSQL
    standby: PostgreSQL

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        super().__init__(folder, synchronous=synchronous)
        self.primary = PostgreSQL(folder / "one")

    @property
    def url(self) -> str:
        """As the class above."""
        return f"postgres://{ROLE}@127.0.0.1:{self.address.port}/{DATABASE}?sslmode=disable"

    def _prepare(self) -> None:
        self.primary.run(f"CREATE ROLE {ROLE} LOGIN")
        self.primary.run(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    def _new_standby(self) -> PostgreSQL:
        self.standby = _Standby(self.folder / "two", self.line.port)
        return self.standby

    def _follow(self) -> None:
        if self.synchronous:
            self.primary.run("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            self.primary.run("SELECT pg_reload_conf()")
            wait_until(self._is_synchronous, message="the standby to be a synchronous one")

    def _is_synchronous(self) -> bool:
        return self.primary.run("SELECT sync_state FROM pg_stat_replication") == [("sync",)]

    def _position(self) -> str:
        return str(self.primary.run("SELECT pg_current_wal_flush_lsn()")[0][0])

    def _standby_has(self, position: str) -> bool:
        return self.standby.run(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == [(True,)]

    def _promote(self) -> None:
        run_as_postgres("pg_ctl", "promote", "-w", "-D", str(self.standby.data))


class _Replica(MariaDB):
    """A server that takes its users from its primary."""

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(self._answers)

    def follow(self, port: int) -> None:
        """Take everything that the server behind `port` has, from its first commit on."""
        self.run(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, "
            "MASTER_USER='replica', MASTER_PASSWORD='replica', MASTER_CONNECT_RETRY=1, "
            "MASTER_USE_GTID=slave_pos"
        )
        self.run("START SLAVE")

    def has_applied_all(self) -> bool:
        """Whether every commit that it received is done."""
        root = closing(pymysql.connect(unix_socket=str(self.socket), user="root"))
        with root as connection, connection.cursor(DictCursor) as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            status = cursor.fetchone() or {}
            assert not status["Last_SQL_Errno"], status["Last_SQL_Error"]
            cursor.execute("SELECT @@gtid_slave_pos AS applied")
            applied = cursor.fetchone() or {}
        return bool(status["Gtid_IO_Pos"] == applied["applied"])


class MariaDBPair(Pair):
    """Replication by GTID; semi-synchronous where acknowledgement is asked for."""

    primary: MariaDB
    standby: _Replica

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        super().__init__(folder, synchronous=synchronous)
        self.primary = MariaDB(folder / "one", *_replicating(1))

    @property
    def url(self) -> str:
        """As the class above."""
        return f"{ROLE}:{PASSWORD}@tcp(127.0.0.1:{self.address.port})/{DATABASE}?parseTime=true"

    def _prepare(self) -> None:
        self.primary.run(f"CREATE USER {ROLE}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        self.primary.run(f"CREATE DATABASE {DATABASE}")
        self.primary.run(f"GRANT ALL ON {DATABASE}.* TO {ROLE}@'127.0.0.1'")
        self.primary.run("CREATE USER replica@'127.0.0.1' IDENTIFIED BY 'replica'")
        self.primary.run("GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'")

    def _new_standby(self) -> _Replica:
        # An empty one: all that the primary has is in its log.
        self.standby = _Replica(self.folder / "two", *_replicating(2), "--read-only")
        return self.standby

    def _follow(self) -> None:
        if self.synchronous:
            self.standby.run("SET GLOBAL rpl_semi_sync_slave_enabled = 1")
            # Before the commit is visible to anybody, and without giving up.
            self.primary.run("SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'")
            self.primary.run("SET GLOBAL rpl_semi_sync_master_timeout = 600000")
            self.primary.run("SET GLOBAL rpl_semi_sync_master_enabled = 1")
        self.standby.follow(self.line.port)
        if self.synchronous:
            wait_until(self._is_synchronous, message="the replica to acknowledge commits")

    def _is_synchronous(self) -> bool:
        rows = self.primary.run("SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")
        return rows == [("Rpl_semi_sync_master_clients", "1")]

    def _position(self) -> str:
        return str(self.primary.run("SELECT @@gtid_binlog_pos")[0][0])

    def _standby_has(self, position: str) -> bool:
        return self.standby.run(f"SELECT MASTER_GTID_WAIT('{position}', 0.2)") == [(0,)]

    def _promote(self) -> None:
        # What it has received and not applied yet must not be lost with the order to stop.
        self.standby.run("STOP SLAVE IO_THREAD")
        wait_until(self.standby.has_applied_all, message="the replica to apply what it has")
        self.standby.run("STOP SLAVE")
        self.standby.run("RESET SLAVE ALL")
        self.standby.run("SET GLOBAL read_only = 0")


def _replicating(number: int) -> tuple[str, ...]:
    """Options of a server of a pair. `--log-bin` goes before the tests' `--skip-log-bin`."""
    return (
        f"--server-id={number}",
        "--log-bin=log",
        "--log-slave-updates",
        "--binlog-format=ROW",
        "--gtid-domain-id=1",
        # What is searched for secrets at the end is in the replication's log as well.
        "--innodb-log-file-size=32M",
    )


PAIRS: dict[Kind, type[Pair]] = {"postgresql": PostgreSQLPair, "mariadb": MariaDBPair}

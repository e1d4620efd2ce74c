"""Debian's PostgreSQL as a server of a test's own: `initdb` takes two seconds, and nothing is left behind."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.waiting import wait_until
from tests.servers.ports import free_port

PROGRAMS = Path("/usr/lib/postgresql")
MISSING = "Debian's package postgresql is missing; `.ci/run` installs it."


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database, which anybody on this machine may use."""
    programs = max(PROGRAMS.glob("*/bin"), default=None)
    assert programs is not None, MISSING
    # PostgreSQL refuses to be root, and pytest's folders are closed to other users.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder, port = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp")), free_port()
    as_user = {"user": user, "cwd": folder} if os.geteuid() == 0 else {"cwd": folder}
    try:
        shutil.chown(folder, user)
        subprocess.run(
            [programs / "initdb", "--no-sync", "-A", "trust", "-U", "test", "-D", folder / "data"],
            check=True,
            capture_output=True,
            **as_user,
        )
        options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": 0}
        settings = [each for name, value in options.items() for each in ("-c", f"{name}={value}")]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *settings], stdout=log, stderr=log, **as_user
            )
        try:
            ask: list[str | Path] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until(
                lambda: subprocess.run(ask, check=False).returncode == 0,
                what="PostgreSQL",
                timeout_s=60,
                failed=lambda: None if server.poll() is None else (folder / "log").read_text(),
            )
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for whoever is still connected
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

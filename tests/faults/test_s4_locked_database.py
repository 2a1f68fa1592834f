"""Row S4 through REST: another process holds SQLite's write lock; reads go on, changes wait and none is lost."""

import sqlite3
import threading
import time
from pathlib import Path

from tests.support.rest import BOILER, ask, rest_server

WRITERS = 20
HELD_S = 3.0
P99_LIMIT_S = 0.5


def test_reads_go_on_and_no_change_is_lost_while_the_database_is_locked(tmp_path: Path) -> None:
    statuses: list[int] = []
    reads: list[float] = []

    def write(number: int) -> None:
        statuses.append(server.ask("POST", "/api/v1/devices/boiler/tags", {"name": f"t{number}"}).status)

    with rest_server(tmp_path) as server:
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
        with sqlite3.connect(tmp_path / "db.sqlite", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
            for thread in threads:
                thread.start()
            connection = server.connection()
            begun = time.monotonic()
            while time.monotonic() - begun < HELD_S:
                asked = time.monotonic()
                assert ask(connection, "GET", "/api/v1/tags").status == 200
                reads.append(time.monotonic() - asked)
                time.sleep(0.005)
            connection.close()
            assert not statuses
            other.execute("ROLLBACK")
        for thread in threads:
            thread.join()
        assert statuses == [201] * WRITERS
        assert server.ask("GET", "/api/v1/tags").json["total"] == WRITERS + 1
    assert sorted(reads)[int(len(reads) * 0.99)] < P99_LIMIT_S

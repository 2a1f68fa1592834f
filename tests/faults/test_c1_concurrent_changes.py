"""Row C1: many clients change the same device at once; no update is lost, an outdated ETag is refused with 412."""

import threading
from pathlib import Path

from tests.support.rest import BOILER, ask, rest_server

CLIENTS = 20
CHANGES = 5


def test_20_clients_that_put_one_device_lose_no_update(tmp_path: Path) -> None:
    """Each adds its own marks to the description, reading again whenever it is told that it was too late."""
    refused = 0
    failures: list[object] = []
    counting = threading.Lock()

    def work(number: int) -> None:
        nonlocal refused
        connection = server.connection(30)
        try:
            for change in range(CHANGES):
                while True:
                    found = ask(connection, "GET", "/api/v1/devices/boiler")
                    document = {"name": "boiler", "description": f"{found.json['description']} {number}.{change}"}
                    answer = ask(
                        connection, "PUT", "/api/v1/devices/boiler", document, {"If-Match": found.headers["etag"]}
                    )
                    if answer.status == 200:
                        break
                    assert answer.status == 412, answer
                    with counting:
                        refused += 1
        except Exception as error:  # noqa: BLE001 - shown by the test's own thread
            failures.append(error)
        finally:
            connection.close()

    with rest_server(tmp_path) as server:
        assert server.ask("POST", "/api/v1/devices", BOILER).status == 201
        threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        marks = server.ask("GET", "/api/v1/devices/boiler").json["description"].split()
        assert sorted(marks) == sorted(f"{number}.{change}" for number in range(CLIENTS) for change in range(CHANGES))
        assert refused > 0
        # Its tags were not in the documents: they are all there still.
        assert server.ask("GET", "/api/v1/tags?device=boiler").json["total"] == 1


def test_many_creators_of_one_name_make_one(tmp_path: Path) -> None:
    statuses: list[int] = []

    def create() -> None:
        statuses.append(server.ask("POST", "/api/v1/devices", BOILER).status)

    with rest_server(tmp_path) as server:
        threads = [threading.Thread(target=create) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [201] + [409] * (CLIENTS - 1)
        assert server.ask("GET", "/api/v1/devices").json["total"] == 1

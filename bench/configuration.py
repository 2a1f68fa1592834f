"""The configuration that the store and REST are measured with."""

from typing import Any


def tag_documents(count: int) -> list[dict[str, Any]]:
    """Tags of the gateway's kind: a field of a JSON message, and two registers."""
    return [
        {
            "name": f"tag{number}",
            "bindings": [
                {"protocol": "mqtt", "direction": "in", "address": {"path": f"values.tag{number}"}},
                {"protocol": "modbus", "direction": "out", "address": {"register": 2 * number, "type": "float32"}},
            ],
        }
        for number in range(count)
    ]

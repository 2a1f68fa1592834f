"""Texts from outside, made fit for the database."""

from sqlalchemy import String, Table


def storable(text: str) -> str:
    """The text without what arrives, but no database holds: U+0000 and halves of surrogate pairs. It stays as long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def lengths(table: Table) -> dict[str, int]:
    """The characters that fit into the columns of text that have a limit, by the columns' names."""
    texts = {column.name: column.type for column in table.columns if isinstance(column.type, String)}
    return {name: kind.length for name, kind in texts.items() if kind.length is not None}

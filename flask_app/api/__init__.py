"""The resources of /api/v1, one module each."""

from flask_smorest import Blueprint

from flask_app.api import (
    bindings,
    configuration,
    devices,
    items,
    networks,
    protocols,
    registers,
    rejects,
    table,
    tags,
    terms,
)


def blueprints() -> tuple[Blueprint, ...]:
    """Every resource, in the order the documentation shows them."""
    modules = (devices, networks, terms, items, tags, bindings, protocols, configuration, table, registers, rejects)
    return tuple(module.blueprint for module in modules)

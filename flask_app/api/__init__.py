"""The resources of /api/v1, one module each."""

from flask_smorest import Blueprint

from flask_app.api import (
    bindings,
    commands,
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
    values,
)


def blueprints() -> tuple[Blueprint, ...]:
    """Every resource, in the order the documentation shows them."""
    described = (devices, networks, terms, items, tags, bindings, protocols, configuration, table)
    modules = (*described, values, commands, registers, rejects)
    return tuple(module.blueprint for module in modules)

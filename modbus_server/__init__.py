"""Modbus TCP server: a mailbox of registers."""

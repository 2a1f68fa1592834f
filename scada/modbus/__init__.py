"""Modbus without I/O: limits, PDUs, frames, register codec, register image."""

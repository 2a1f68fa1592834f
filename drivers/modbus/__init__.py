"""Modbus: TCP, UDP, RTU over TCP, serial RTU."""

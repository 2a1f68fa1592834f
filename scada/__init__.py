"""The core: values, configuration, mapping, Modbus without I/O. No socket, file, clock, thread or log."""

"""The mock on a socket: as a command, and in a thread."""

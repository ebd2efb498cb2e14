"""The vocabulary of the daemon: frozen values, ports, errors and settings. No I/O."""

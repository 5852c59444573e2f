"""The address of the pages that commands serve: this machine alone."""

import socket

from stav2a.utils.errors import UsageError

HOST = "127.0.0.1"


def check_free(port: int) -> None:
    """Refuse a port that another program listens on.

    Raises:
        UsageError: The port is taken, or may not be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"--port {port} can't be used ({error.strerror})."
            raise UsageError(message, advice=f"Choose another, such as --port {port + 1}.") from None

"""Addresses of the pages that commands serve: this machine alone by default."""

import errno
import socket

from stav2a.utils.errors import UsageError

HOST = "127.0.0.1"
ANY_HOST = "0.0.0.0"  # all addresses of this machine


def check_free(port: int, host: str = HOST) -> None:
    """Refuse a port that another program listens on, and an address that is not this machine's.

    Raises:
        UsageError: The port is taken, or may not be used; or the address is another machine's, or none.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                message = f"--host {host} is no address of this machine ({error.strerror})."
                raise UsageError(message, advice=f"Leave it out, or give {ANY_HOST} for all.") from None
            message = f"--port {port} can't be used ({error.strerror})."
            raise UsageError(message, advice=f"Choose another, such as --port {port + 1}.") from None

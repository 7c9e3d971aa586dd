"""The server of the page: it listens, loads the models and says where the page is."""

import ipaddress
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from mer import InputError


def serve(folders: Sequence[str], *, host: str, port: int, largest: int, allow: Sequence[str] = ()) -> int:
    """Show the page until it is interrupted.

    Args:
        folders: Of the models.
        host: Name or number to listen on.
        port: Likewise; 0 for any that is free.
        largest: Megabytes of an upload.
        allow: See ``mer.trained.Model``.

    Returns:
        Exit status.

    Raises:
        InputError: If the extra is missing, the port is taken or a folder holds no model.
    """
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(
            f"`mer demo` needs starlette, uvicorn and python-multipart ({error}): install the extra, "
            ".venv/bin/uv pip install --python .venv/bin/python starlette uvicorn python-multipart"
        ) from error
    with _listen(host, port) as listening:
        import mer.preprocessing.opencv  # noqa: F401  says what is missing
        from experiments.demo.app import application
        from mer.trained import load

        models = {}
        for folder in folders:
            model = load(folder, allow=allow)
            if models.setdefault(model.name, model) is not model:
                raise InputError(f"two models are called {model.name}; rename one of the folders")
        if not _is_loopback(host):
            print(
                f"mer: --host {host}: anybody who reaches this machine can use this page, and nothing is encrypted",
                file=sys.stderr,
            )
        config = uvicorn.Config(
            application(models, host=host, largest=largest * 10**6),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=3,
        )
        shown = f"[{host}]" if ":" in host else host
        with suppress(KeyboardInterrupt):  # which is how it ends
            print(f"demo: http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
            uvicorn.Server(config).run([listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket at this address, before seconds go by with loading."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}, port {port} ({reason}); name another --port or --host") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

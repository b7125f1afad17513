"""Run the whole shop, or one of its services."""

import argparse
import contextlib
import signal
import socket

from spanproof.examples.shop.services import SERVICES


def main() -> None:
    """Run the shop or the service that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m spanproof.examples.shop", description=__doc__)
    names = {service.name: service for service in SERVICES}
    parser.add_argument("service", nargs="?", choices=names, help="run only this service (default: the whole shop)")
    parser.add_argument("--host", default="127.0.0.1", help="its address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="its port (default: a free one)")
    parser.add_argument("--otlp-grpc", default="127.0.0.1:4317", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--otlp-http", default="127.0.0.1:4318", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--listen-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tether-fd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if arguments.service is None:
            run_shop(arguments.otlp_grpc, arguments.otlp_http)
        else:
            run_service(arguments.service, (arguments.host, arguments.port), arguments.listen_fd, arguments.tether_fd)


def run_shop(otlp_grpc: str, otlp_http: str) -> None:
    """Run the whole shop until Ctrl-C or SIGTERM."""
    from spanproof.examples.shop.shop import Shop

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Shop.start(otlp_grpc, otlp_http, on_progress=print) as shop:
        print(f"the shop is open: {shop.base_url} (logs: {shop.log_dir}); Ctrl-C closes it", flush=True)
        signal.pause()


def run_service(name: str, address: tuple[str, int], listen_fd: int | None, tether_fd: int | None) -> None:
    """Run one service, on an inherited socket or on a new one."""
    # Imported here because the whole shop, which only starts processes, does not need it.
    from spanproof.examples.shop.service import create_app, serve

    if listen_fd is not None:
        listener = socket.socket(fileno=listen_fd)
    else:
        listener = socket.create_server(address)
        print(f"{name} listens on http://{address[0]}:{listener.getsockname()[1]}", flush=True)
    serve(create_app(next(service for service in SERVICES if service.name == name)), listener, tether_fd)


if __name__ == "__main__":
    main()

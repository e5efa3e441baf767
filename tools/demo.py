"""Serve the bundled model, stream one completion from it over gRPC, stop the server.

    python tools/demo.py [PROMPT]

Uses the `spiketrain` command alone, as a reader would. However it ends, the server is stopped.
"""

import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROMPT = "Once upon a time there was a little"
SEED = "1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.05

COMMAND = Path(sys.executable).parent / "spiketrain"


def show(*arguments: str) -> None:
    """Print a command line as one would type it."""
    print("$ spiketrain", shlex.join(arguments), file=sys.stderr, flush=True)


def await_port(server: subprocess.Popen[bytes], port_file: Path) -> int:
    """Return the port that `server` wrote; RuntimeError if it ended or took too long."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        if port_file.exists() and (text := port_file.read_text().strip()):
            return int(text)
        time.sleep(POLL_S)
    raise RuntimeError(f"the server did not listen within {START_TIMEOUT_S:.0f} s")


def stop(server: subprocess.Popen[bytes]) -> int:
    """Ask `server` to drain and end, insist if it does not; return its exit status."""
    server.terminate()
    try:
        return server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        return server.wait()


@contextmanager
def serving(command: Path) -> Iterator[int]:
    """Run a server of the bundled model on a free loopback port, which is the value."""
    with tempfile.TemporaryDirectory() as directory:
        port_file, log = Path(directory, "port"), Path(directory, "log")
        arguments = ["serve", "--port", "0", "--port-file", str(port_file)]
        show("serve", "--port", "0")
        with log.open("wb") as output:
            # Its own session: an interrupt at the terminal reaches this process, which stops it.
            server = subprocess.Popen(
                [command, *arguments], stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield await_port(server, port_file)
        except RuntimeError:
            sys.stderr.write(log.read_text(errors="replace"))
            raise
        finally:
            status = stop(server)
        if status:
            sys.stderr.write(log.read_text(errors="replace"))
            raise RuntimeError(f"the server stopped with status {status}")


def main(prompt: str) -> int:
    """Return the exit status: 0 if the completion was streamed and the server stopped cleanly."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        with serving(COMMAND) as port:
            arguments = [
                "generate",
                prompt,
                "--echo",
                "--seed",
                SEED,
                "--server",
                f"127.0.0.1:{port}",
            ]
            show(*arguments)
            return subprocess.run([COMMAND, *arguments], check=False).returncode
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else PROMPT))

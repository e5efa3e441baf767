"""The example in another language: it knows the .proto file and nothing else."""

import asyncio
import shutil
from pathlib import Path

import pytest
from local_server import serving

EXAMPLE = Path(__file__).parents[3] / "examples" / "node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (EXAMPLE / "node_modules").is_dir(),
    reason="needs Node.js and `npm install` in examples/node",
)


async def run_example(*arguments):
    process = await asyncio.create_subprocess_exec(
        "node",
        str(EXAMPLE / "generate.js"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_node_client_streams_a_completion():
    async with serving() as served:
        address = f"127.0.0.1:{served.port}"
        status, out, err = await run_example(address, "abc", "5", str(2**64 - 1))
    assert (status, out) == (0, "hello\n")
    assert "prompt: 3 tokens, seed 18446744073709551615" in err
    assert "5 tokens (FINISH_REASON_LENGTH)" in err
    assert "firing rate 20.0 %" in err


async def test_a_node_client_sees_what_the_server_refuses():
    async with serving() as served:
        status, out, err = await run_example(f"127.0.0.1:{served.port}", "")
    assert (status, out) == (1, "")
    assert "INVALID_ARGUMENT: prompt must hold at least one token" in err

"""Sessions that leave a server as bytes and come to another."""

import grpc
import pytest
from local_server import serving
from session_calls import PROMPT, create, export, import_, refused, served_again, turn
from tiny import tiny_egru_package

from spiketrain.runtime import load_model
from spiketrain.serving.rpc.sessions_servicer import PIECE_BYTES
from spiketrain.serving.sessions.blob import from_blob, to_blob


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_egru_package(tmp_path_factory.mktemp("sessions") / "model"))


async def test_an_exported_session_goes_on_at_another_server(model):
    async with serving(model) as one, serving(model) as other:
        session = await create(one, seed=3)
        await one.generation.Generate(turn(session, PROMPT, 4))
        blob = await export(one, session)
        for size in (PIECE_BYTES, 1000):
            moved = await import_(other, blob, size, ttl_s=60.0)
            assert (moved.num_tokens, moved.seed) == (9, 3)
            assert moved.expires_s - moved.created_s == 60.0
            there = await other.generation.Generate(turn(moved, None, 6))
            back = await served_again(one, session)
            assert there.token_ids == back.token_ids


async def test_bytes_that_are_no_session_of_this_model_are_refused(model, tmp_path):
    other = load_model(tiny_egru_package(tmp_path / "other", seed=1))
    async with serving(model) as served, serving(other) as foreign:
        session = await create(served)
        await served.generation.Generate(turn(session, PROMPT))
        blob = await export(served, session)
        await refused(
            import_(foreign, blob),
            grpc.StatusCode.FAILED_PRECONDITION,
            "SESSION_OF_ANOTHER_MODEL",
        )
        flipped = bytearray(blob)
        flipped[len(blob) // 2] ^= 1
        for bad in (bytes(flipped), blob[:-1], b"", b"x" * 500):
            await refused(import_(served, bad), grpc.StatusCode.DATA_LOSS, "SESSION_DAMAGED")
        code = grpc.StatusCode.INVALID_ARGUMENT
        await refused(import_(served, bytes(1 << 20)), code, "INVALID_REQUEST")
        await refused(import_(served, blob, ttl_s=-1.0), code, "INVALID_REQUEST")
        assert served.server.sessions.count()[0] == 1


@pytest.mark.parametrize("tokens", [2**31, 2**53, 2**63 - 1])
async def test_a_session_of_any_length_is_gone_on_with_and_exported_again(model, tokens):
    async with serving(model) as served:
        session = await create(served, seed=2**64 - 1)
        await served.generation.Generate(turn(session, PROMPT, 4))
        start, seed = from_blob(await export(served, session), model)
        start.state.position = tokens
        moved = await import_(served, to_blob(start, seed, model.fingerprint))
        assert (moved.num_tokens, moved.seed) == (tokens, 2**64 - 1)
        reply = await served.generation.Generate(turn(moved, PROMPT, 6))
        assert len(reply.token_ids) == 6
        again, _ = from_blob(await export(served, moved), model)
        assert again.state.position == min(tokens + len(PROMPT) + 6, 2**63 - 1)

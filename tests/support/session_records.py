"""Sessions and snapshots as tests of stores make them."""

from spiketrain.serving.sessions.session import Session, Snapshot


def snapshot(key, size=10):
    return Snapshot(key, num_tokens=3, nbytes=size)


def session(name="a", etag="1", head="s", expires_s=100.0, **checkpoints):
    return Session(
        id=name,
        etag=etag,
        seed=2**64 - 1,
        head=snapshot(head),
        ttl_s=60.0,
        created_s=1.5,
        changed_s=2.5,
        expires_s=expires_s,
        checkpoints={name: snapshot(key) for name, key in checkpoints.items()},
    )


def data(*keys, size=10):
    return {key: key.encode().ljust(size, b".") for key in keys}

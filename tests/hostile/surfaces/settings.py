"""Files of an operator: settings and tokens."""

from contextlib import contextmanager

from mutation import changed_bytes, changed_text

from spiketrain.serving.errors import ConfigError
from spiketrain.serving.rpc.tokens import read_tokens
from spiketrain.serving.settings import read_settings

TARGET, BATCH, NEEDS = 1_000_000, 5000, ("structlog",)
KINDS = ("settings", "tokens")
SERVICES = frozenset({"Generation", "Models"})
SEEDS = {
    "settings": 'model = "m"\nmax_batch_size = 8\nport = 50051\nflush_interval_s = 0.02\n'
    'log_level = "info"\nmax_queue = 9\nhost = "127.0.0.1"\nthreads = 2\n',
    "tokens": '[callers.alice]\ntoken = "0123456789abcdef"\nservices = ["Generation"]\n'
    f'[callers.bob]\nsha256 = "{"0" * 64}"\n[callers.carl]\ncertificate = "c@example.org"\n',
}
WORDS = (
    "= nan", "= inf", "= -1", "= 99999999999999999999", '= ""', "= []", "= {}", "[x]", "[[x]]",
    "= true", "= 1979-05-27", '"\\u0000"', "= 0x7fff", "\n", "callers", "= 1e999", "[" * 1200,
    "= " + "[" * 1200, "= 0x" + "f" * 5000, "= " + "[" * 300 + "]" * 300,
    "= " + "{a = " * 600, "= " + "9" * 5000, "= 2001-02-30", "= 24:00:00", "a." * 1500 + "b = 1",
)  # fmt: skip


def prepare(folder):
    return folder


def make(chance, seeds):
    kind = chance.randrange(len(KINDS))
    data = changed_text(chance, SEEDS[KINDS[kind]], WORDS).encode()
    return bytes([kind]) + (changed_bytes(chance, data) if chance.random() < 0.2 else data)


@contextmanager
def open_calls(seeds):
    path = seeds / "file.toml"

    def call(data):
        path.write_bytes(data[1:])
        if KINDS[data[0] % len(KINDS)] == "settings":
            return read_settings(str(path), {}, {})
        return read_tokens(str(path), SERVICES)

    yield call


def allowed():
    return (ConfigError,)

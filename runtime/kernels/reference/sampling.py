"""Scalar twins of the kernels that draw tokens: sort everything, add everything up."""

from __future__ import annotations

import math

from spiketrain.runtime.kernels.reference.functions import _exp, _log, _sum_in_parts

_MASK = (1 << 64) - 1
_BLOCK = 64
_LEAST_SHARE = 2.0**-1022


def uniform(seed, position, index):
    """Philox4x64-10 in whole numbers."""
    a, b, c, d = 1, position, 0, 0
    key, other_key = seed, index
    for _ in range(10):
        product, other_product = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b = other_product >> 64 ^ b ^ key, other_product & _MASK
        c, d = product >> 64 ^ d ^ other_key, product & _MASK
        key = key + 0x9E3779B97F4A7C15 & _MASK
        other_key = other_key + 0xBB67AE8584CAA73B & _MASK
    return (a >> 11) * 2.0**-53


class Drawer:
    """Draws from rows of `size` logits."""

    def __init__(self, size):
        self.size = size

    def draw(self, rows, choices, tokens):
        """tokens[b] from rows[b]; choices as in the kernel."""
        for b, row in enumerate(rows):
            tokens[b] = _draw([float(x) for x in row], *map(float, choices[b]))


def _draw(logits, temperature, top_k, top_p, min_p, typical_p, random):
    if any(x != x for x in logits):
        return -1
    best = max(range(len(logits)), key=lambda i: (logits[i], -i))
    most = logits[best]
    if not math.isfinite(most):
        return -1
    if temperature == 0 or top_k == 1:
        return best
    ids = list(range(len(logits)))
    if 0 < top_k < len(logits):
        ids = sorted(sorted(ids, key=lambda i: (-logits[i], i))[: int(top_k)])
    kept = [(i, _weight(logits[i], most, temperature)) for i in ids]
    if top_p != 1:
        kept = _fewest(kept, [weight for _, weight in kept], top_p * _total(kept))
    if min_p != 0:
        kept = [(i, weight) for i, weight in kept if weight >= min_p]
    if typical_p != 1:
        kept = _typical(kept, typical_p)
    return _pass(kept, random)


def _weight(x, most, temperature):
    v = (x - most) / temperature if abs(x - most) < temperature * 1e308 else -math.inf
    return 0.0 if v < -700.0 else _exp(v)


def _total(kept):
    return _sum_in_parts([weight for _, weight in kept])


def _fewest(kept, keys, wanted):
    """Those of greatest key, of equal ones the first, that weigh at least `wanted` together."""
    taken, mass = set(), 0.0
    for at in sorted(range(len(kept)), key=lambda at: (-keys[at], at)):
        taken.add(at)
        mass += kept[at][1]
        if mass >= wanted:
            break
    return [pair for at, pair in enumerate(kept) if at in taken]


def _typical(kept, typical_p):
    total = _total(kept)
    shares = [weight / total for _, weight in kept]
    information = [-_log(share) if share >= _LEAST_SHARE else 0.0 for share in shares]
    entropy = 0.0
    for share, nats in zip(shares, information, strict=True):
        entropy += share * nats
    likely = [at for at, share in enumerate(shares) if share >= _LEAST_SHARE]
    keys = [-abs(information[at] - entropy) for at in likely]
    return _fewest([kept[at] for at in likely], keys, typical_p * total)


def _pass(kept, random):
    blocks = [kept[start : start + _BLOCK] for start in range(0, len(kept), _BLOCK)]
    sums, mass = [], 0.0
    for block in blocks:
        mass += _total(block)
        sums.append(mass)
    wanted = random * mass
    at = next((b for b, total in enumerate(sums) if total > wanted), None)
    if at is None:
        at = sums.index(sums[-1])
    wanted -= sums[at - 1] if at else 0.0
    mass = 0.0
    for i, weight in blocks[at]:
        mass += weight
        if mass > wanted:
            return i
    return [i for i, weight in blocks[at] if weight > 0.0][-1]

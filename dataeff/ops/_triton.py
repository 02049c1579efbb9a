"""The token operations as Triton kernels, for CUDA; with TRITON_INTERPRET=1 they run on the CPU, slowly."""

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

_TILE = 4096  # numbers that a program moves
_ROW = 8192  # positions that a program holds at once; longer rows are gone through in pieces of it


@triton.jit(do_not_specialize=["keep"])  # it follows a pace
def _move(
    x, y, ids,
    x_row, x_token, x_number, y_row, y_token, y_number, ids_row, ids_token,
    keep, width,
    GATHER: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y[b, k] = x[b, ids[b, k]], or the other way round. One program a tile of (TOKENS, WIDTH) numbers."""
    program = tl.program_id(0)
    across, down = tl.cdiv(width, WIDTH), tl.cdiv(keep, TOKENS)
    row = (program // across // down).to(tl.int64)
    k = (program // across % down).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    number = (program % across).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    token = tl.load(ids + row * ids_row + k * ids_token, mask=k < keep, other=0).to(tl.int64)
    inside = (k < keep)[:, None] & (number < width)[None, :]
    there = x + row * x_row + (token * x_token)[:, None] + (number * x_number)[None, :]
    here = y + row * y_row + (k * y_token)[:, None] + (number * y_number)[None, :]
    if GATHER:
        tl.store(here, tl.load(there, mask=inside), mask=inside)
    else:
        tl.store(there, tl.load(here, mask=inside), mask=inside)


def gather(x: Tensor, ids: Tensor, out: Tensor) -> Tensor:
    """Fill `out`, (B, K, ...), with the tokens `ids` of `x`, (B, S, ...); return it."""
    _launch(_flat(x), _flat(out), ids, gather=True)
    return out


def write(x: Tensor, y: Tensor, ids: Tensor) -> None:
    """Put `y`, (B, K, ...), in place of the tokens `ids` of `x`, (B, S, ...)."""
    flat = _flat(x)
    _launch(flat, _flat(y), ids, gather=False)
    if flat.data_ptr() != x.data_ptr():  # the numbers of a token do not lie evenly: this is a copy
        x.copy_(flat.view(x.dtype).view(x.shape))


def _launch(x: Tensor, y: Tensor, ids: Tensor, *, gather: bool) -> None:
    if not y.numel():
        return
    batch, keep, width = y.shape
    wide = min(triton.next_power_of_2(width), _TILE)
    tokens = min(triton.next_power_of_2(keep), _TILE // wide)
    programs = batch * triton.cdiv(keep, tokens) * triton.cdiv(width, wide)
    strides = *x.stride(), *y.stride(), *ids.expand(batch, -1).stride()
    with torch.cuda.device_of(x):  # not on another that is the current one
        _move[(programs,)](
            x, y, ids, *strides, keep, width, GATHER=gather, TOKENS=tokens, WIDTH=wide, enable_fp_fusion=False
        )  # fmt: skip


def _flat(x: Tensor) -> Tensor:
    """The bits of each token on one axis, as integers. (B, S, ...) -> (B, S, C); a view if that can be."""
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    x = x.resolve_neg()
    return (x if x.dim() > 2 else x.unsqueeze(-1)).flatten(2).view(_BITS[x.itemsize])


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def _mix(x):
    """The finaliser of SplitMix64, as in rng."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _float(bits: tl.constexpr):
    """A float64 by its bits: a literal could be rounded to float32."""
    return tl.full((1,), bits, tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _exponential(words):
    """`reference.exponential`: the same operations in the same order; they must not be fused."""
    one = tl.full((1,), 1, tl.float64)
    rest = one - (words.to(tl.float64) + one / 2) * _float(0x3DF0000000000000)  # 2**-32
    bits = rest.to(tl.int64, bitcast=True)
    exponent = ((bits >> 52) & 0x7FF) - 1022
    bits = (bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000  # of the mantissa, in [0.5, 1)
    small = bits < 0x3FE6A09E667F3BCD  # the root of a half
    mantissa = tl.where(small, bits + 0x10000000000000, bits).to(tl.float64, bitcast=True)
    exponent = tl.where(small, exponent - 1, exponent)
    s = (mantissa - one) / (mantissa + one)
    square = s * s
    series = tl.zeros_like(s) + one / 21
    for step in tl.static_range(10):
        series = series * square + one / (19 - 2 * step)
    return one - one - (2 * s * series + exponent.to(tl.float64) * _float(0x3FE62E42FEFA39EF))  # log 2


@triton.jit
def _scores(
    key, line, row, start, seq, prefix, always, always_row, always_token, valid, valid_row, valid_token,
    weights, weights_row, weights_token,
    PREFIX: tl.constexpr, ALWAYS: tl.constexpr, VALID: tl.constexpr, WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The scores of positions start, start + 1, ...: the words, or what orders by class first. (BLOCK,)"""
    quads = (start // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)
    zeros = tl.zeros_like(quads)
    first, second, third, fourth = tl.philox(key, quads, zeros + line.to(tl.uint32), zeros, zeros)
    scores = tl.interleave(tl.interleave(first, third), tl.interleave(second, fourth))
    if PREFIX or ALWAYS or VALID or WEIGHTS:
        position = start + tl.arange(0, BLOCK)
        inside = position < seq
        rank = tl.full((BLOCK,), 1, tl.uint64)
        if WEIGHTS:
            weight = tl.load(weights + row * weights_row + position * weights_token, mask=inside, other=1).to(
                tl.float64
            )
            rank = tl.where(weight > 0, rank, 2)
            amount = _exponential(scores) / tl.where(weight > 0, weight, 1.0)
            scores = amount.to(tl.uint64, bitcast=True) >> 1
        else:
            scores = scores.to(tl.uint64)
        if VALID:
            real = tl.load(valid + row * valid_row + position * valid_token, mask=inside, other=1)
            rank = tl.where(real != 0, rank, 3)
        if ALWAYS:
            must = tl.load(always + row * always_row + position * always_token, mask=inside, other=0)
            rank = tl.where(must != 0, 0, rank)
        if PREFIX:
            rank = tl.where(position < prefix, 0, rank)
        scores = scores | (rank.to(tl.uint64) << 62)
    return scores


@triton.jit
def _fold(key, part):
    golden = tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
    return _mix((key ^ _mix(part.to(tl.uint64) + golden)) + golden)


@triton.jit(do_not_specialize=["key", "after", "first_row", "batch", "seq", "keep", "prefix"])
def _choose(
    out, key, moment, after, first_row, batch, seq, keep, prefix, always, always_row, always_token,
    valid, valid_row, valid_token, weights, weights_row, weights_token,
    MOMENT: tl.constexpr, AFTER: tl.constexpr, LAYERED: tl.constexpr,
    PREFIX: tl.constexpr, ALWAYS: tl.constexpr, VALID: tl.constexpr, WEIGHTS: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The kept positions of one row of one layer: the bits of the last score that is kept, one by one."""
    program = tl.program_id(0)
    row = (program % batch).to(tl.int64)
    key = key.to(tl.uint64)
    for i in tl.static_range(MOMENT):
        key = _fold(key, tl.load(moment + i))
    if AFTER:
        key = _fold(key, after.to(tl.int64))
    if LAYERED:
        key = _fold(key, program // batch)
    line = first_row + row
    position = tl.arange(0, BLOCK)
    scores = _scores(
        key, line, row, 0, seq, prefix, always, always_row, always_token, valid, valid_row, valid_token,
        weights, weights_row, weights_token, PREFIX, ALWAYS, VALID, WEIGHTS, BLOCK,
    )  # fmt: skip
    bit = tl.full((), 1 << (WIDTH - 1), scores.dtype)
    found = tl.full((), 0, scores.dtype)
    below = 0
    for _ in range(WIDTH + 1):  # the last time, with a bit of 0, only counts what is below
        test = found | bit
        bit = bit >> 1
        below = tl.sum(((position < seq) & (scores < test)).to(tl.int32))
        if not WHOLE:
            for start in range(BLOCK, seq, BLOCK):
                more = _scores(
                    key, line, row, start, seq, prefix, always, always_row, always_token, valid, valid_row,
                    valid_token, weights, weights_row, weights_token, PREFIX, ALWAYS, VALID, WEIGHTS, BLOCK,
                )  # fmt: skip
                below += tl.sum(((start + position < seq) & (more < test)).to(tl.int32))
        found = tl.where(below < keep, test, found)
    ties = keep - below
    placed = 0
    for start in range(0, seq, BLOCK):
        if not WHOLE:
            scores = _scores(
                key, line, row, start, seq, prefix, always, always_row, always_token, valid, valid_row,
                valid_token, weights, weights_row, weights_token, PREFIX, ALWAYS, VALID, WEIGHTS, BLOCK,
            )  # fmt: skip
        inside = start + position < seq
        equal = (inside & (scores == found)).to(tl.int32)
        taken = equal & (tl.cumsum(equal, 0) <= ties).to(tl.int32)
        kept = (inside & (scores < found)).to(tl.int32) | taken
        place = placed + tl.cumsum(kept, 0) - kept
        tl.store(out + program.to(tl.int64) * keep + place, start + position, mask=kept != 0)
        ties -= tl.sum(taken)
        placed += tl.sum(kept)


def sample(
    key: int,
    layered: bool,
    first_row: int,
    prefix: int,
    always: Tensor | None,
    valid: Tensor | None,
    weights: Tensor | None,
    seq: int,
    ids: Tensor,
    *,
    moment: Tensor | None = None,
    after: int | None = None,
) -> Tensor:
    """Fill `ids`, (layers, batch, keep) int32, and return it.

    `key` is folded with the entries of `moment`, with `after`, and with the layer if `layered`.
    """
    layers, batch, keep = ids.shape
    if not ids.numel():
        return ids
    masks = []
    for mask in (always, valid, weights):
        rows = ids if mask is None else mask.contiguous().expand(batch, seq)  # in reach of 32 bits
        masks += [rows.view(torch.uint8) if rows.dtype == torch.bool else rows, *rows.stride()[-2:]]
    block = max(min(triton.next_power_of_2(seq), _ROW), 16)
    plain = not (prefix or any(mask is not None for mask in (always, valid, weights)))
    with torch.cuda.device_of(ids):
        _choose[(layers * batch,)](
            ids, key - 2**64 if key >= 2**63 else key, ids if moment is None else moment.contiguous(),
            after or 0, first_row, batch, seq, keep, prefix, *masks,
            MOMENT=0 if moment is None else moment.numel(), AFTER=after is not None, LAYERED=layered,
            PREFIX=prefix > 0, ALWAYS=always is not None, VALID=valid is not None,
            WEIGHTS=weights is not None, WIDTH=32 if plain else 64, BLOCK=block, WHOLE=seq <= block,
            enable_fp_fusion=False, num_warps=min(max(block // 512, 4), 16),
        )  # fmt: skip
    return ids

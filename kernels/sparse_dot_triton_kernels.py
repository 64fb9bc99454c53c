"""The two Triton kernels of `sparse_dot_triton`, which says what they are for.

Both visit windows: for each query, those at the places `first` to `first + n_places` of its row of `order`, an array
[Q, n_windows]. `bounds`, of the same shape, says what a sum can reach there, and `limits` [Q] what it has to reach.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["first", "n_places", "n_windows"])
def add_runs(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    sums,
    touched,
    order,
    bounds,
    limits,
    first,
    n_places,
    n_windows,
    width,
    programs,
    bases,
    offsets,
    local,
    impacts,
    ABOVE_ZERO: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (p, place) adds every n-th block of a run, in the window at that place of its query's order."""
    place = tl.program_id(0) % n_places
    row = programs + (tl.program_id(0) // n_places).to(tl.int64) * 5
    query = tl.load(row)
    visit = query.to(tl.int64) * n_windows + first + place
    if tl.load(bounds + visit) < tl.load(limits + query):
        return
    term = tl.load(row + 1).to(tl.int64)
    run = offsets + term * (n_windows + 1) + tl.load(order + visit)
    base = tl.load(bases + term)
    start = base + tl.load(run)
    stop = base + tl.load(run + 1)
    if start >= stop:
        return
    weight = tl.load(row + 2)
    end = (stop + 15) // 16 * 16  # so that a load is whole or not at all: what is beyond the run is ignored
    sums += (query * n_places + place) * width
    touched += (query * n_places + place) * width
    step = BLOCK * tl.load(row + 4)
    for begin in range(start // 16 * 16 + BLOCK * tl.load(row + 3), stop, step):
        at = begin + tl.arange(0, BLOCK)
        near = at < end
        document = tl.load(local + at, mask=near, other=0).to(tl.int32)
        impact = tl.load(impacts + at, mask=near, other=0).to(tl.int32)
        own = (at >= start) & (at < stop)
        tl.atomic_add(sums + document, weight * impact, mask=own, sem="relaxed")
        if not ABOVE_ZERO:
            tl.store(touched + document, 1, mask=own)


@triton.jit(do_not_specialize=["first", "n_places", "n_windows", "capacity"])
def keep_best(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    sums,
    touched,
    order,
    bounds,
    limits,
    first,
    n_places,
    n_windows,
    width,
    last,
    dense_starts,
    dense,
    dense_bytes,
    block_max,
    rows,
    allowed,
    found,
    counts,
    window_size,
    capacity,
    ABOVE_ZERO: tl.constexpr,
    DENSE: tl.constexpr,
    MASKED: tl.constexpr,
    TILE: tl.constexpr,
):
    """Program (query, place, tile) finishes and clears the sums of a tile, and appends the keys of what may be best."""
    n_tiles = tl.cdiv(width, TILE)
    tile = tl.program_id(0) % n_tiles
    place = tl.program_id(0) // n_tiles % n_places
    query = tl.program_id(0) // n_tiles // n_places
    visit = query.to(tl.int64) * n_windows + first + place
    limit = tl.load(limits + query)
    if tl.load(bounds + visit) < limit:
        return
    window = tl.load(order + visit)
    blocks = tile * (TILE // 32) + tl.arange(0, TILE // 32)
    local = blocks[:, None] * 32 + tl.arange(0, 32)[None, :]
    inside = local < width
    at = (query * n_places + place) * width + local
    score = tl.load(sums + at, mask=inside, other=0)
    tl.store(sums + at, 0, mask=inside)
    if ABOVE_ZERO:
        live = tl.max(score, axis=1)
        if DENSE:
            first_block = window.to(tl.int64) * (width // 32)
            stride = n_windows.to(tl.int64) * (width // 32)
            begin, end = tl.load(dense_starts + query), tl.load(dense_starts + query + 1)
            for entry in range(begin, end):
                maxima = block_max + tl.load(dense + 2 * entry) * stride + first_block + blocks
                live += tl.load(dense + 2 * entry + 1) * tl.load(maxima, mask=blocks < width // 32, other=0)
            if tl.max(live, axis=0) < limit:
                return
            for entry in range(begin, end):
                byte = dense_bytes + (tl.load(dense + 2 * entry) * stride + first_block) * 32 + local
                impact = tl.load(byte, mask=live[:, None] >= limit, other=0).to(tl.int32)
                score += tl.load(dense + 2 * entry + 1) * impact
        elif tl.max(live, axis=0) < limit:
            return
        passing = score >= limit
    else:
        passing = tl.load(touched + at, mask=inside, other=0) != 0
        tl.store(touched + at, 0, mask=inside)
    position = window.to(tl.int64) * window_size + local
    row = tl.load(rows + position, mask=passing, other=0).to(tl.int64)
    if MASKED:
        passing = passing & (tl.load(allowed + row, mask=passing, other=0) != 0)
    key = (score.to(tl.int64) << 32) | (4294967295 - row)
    passing = passing & (key > tl.load(last + query))
    chosen = tl.reshape(passing, [TILE]).to(tl.int32)
    n_chosen = tl.sum(chosen, axis=0)
    if n_chosen > 0:
        slot = tl.atomic_add(counts + query, n_chosen, sem="relaxed") + tl.cumsum(chosen, axis=0) - 1
        to = found + query.to(tl.int64) * capacity + slot
        tl.store(to, tl.reshape(key, [TILE]), mask=(chosen != 0) & (slot < capacity))

"""How threads share pCPUs on average: a queueing network in equilibrium, without single events.

Each thread is one customer that is either away (thinking, or without work) or present (running or
waiting). With F, the factor by which others make a piece of work longer (1: alone),

    closed loop   presence Q = F / (F + think/work)
    arrivals      presence Q = min(1, rate x F)
    both          run = Q / F,  wait = Q - run,  away = 1 - Q

On a pCPU of its own mask a thread shares with the others pinned there, so F = 1 + their weighted
presence. What it meets is their presence *without it* (the arrival theorem of queueing networks):
Q with the crowd made smaller by one, here by the factor (n-2)/(n-1). Worked example: it needs 0.5
(think = work) and sits beside one hog: F = 2, Q = 2/3, run = wait = away = 1/3; beside three
hogs: F = 4, Q = 0.8, run = 0.2, wait = 0.6. Two such loops alone: each meets the other with
Q = 0.5, so run = 0.4, which is the exact answer for random lengths of work.

A mask of several pCPUs is a pool: the kernel lets a waiting thread move at once to an idle pCPU
and evens out run queues, so a pool of c pCPUs is one queue with c servers. Nobody waits while no
more than c are present, whatever they weigh. Once N others and the thread itself are more than c,
the servers are divided by weight, so with W the others' weight in units of its own,
F = 1 + E[W - (c - 1); N > c - 1] / c. N is taken as normally distributed, and W as what it is on
average where there are N: equal weights make it (N - (c - 1))+. Pools may overlap each other and
pinned threads: the pool's threads fill up its least loaded pCPUs to one level, as water does; by
number while there are idle ones, by weight when there are none.

Slices: on a pCPU of its own mask, who wakes does not break off who runs, so the first wait is at
least the rest of a run. A piece of work w that comes after thinking z meets a run of length s (the
other's work, a slice at most) that has s / (1 - exp(-s/z)) - z left on average; where that is more
than F would add to w, it is the wait. Worked example: w = 1 ms, z = 1 ms beside a hog in slices of
3 ms: 2.16 ms wait, so F = 3.16 and not 2; the event model finds 3.14. And who has little to do is
soon gone: of a run of 3 ms a wait of 0.1 ms is a thirtieth, however long the other had to wait.

Weights: a guest's shares are spread over its vCPUs that are present, as the kernel's group
scheduling does. A weight too large to be used (more than one pCPU's worth) counts as what can be.
SMT: a thread runs at 1 - (1 - sigma) x busy share of its sibling, and a pool fills one pCPU of each
core before it begins with the second ones. Not modelled: loops of fixed lengths that fall in step
with each other, and the time that balancing takes; the event model has both.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

_ITERATIONS = 80
_TOLERANCE = 2e-4
_TINY = 1e-12
_STEADY = 1e-4
"""With less variance the number of others is always the same."""
_ALWAYS = 0.999
"""Who is present more than this always wants to run."""
_FILLING_UP = 0.25
"""So far beyond its idle pCPUs a pool goes over from filling up by number to doing so by weight."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Threads with the same mask of several pCPUs."""

    cpus: Ints
    threads: Ints
    first: Bools
    """By pCPU of the pool: whether no pCPU before it in the pool is of the same core."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Who may run where, and what the pCPUs are; changes only with affinities and topology."""

    pinned_cpu: Ints
    """By thread: index of its one pCPU, or -1."""
    pools: tuple[Pool, ...]
    speed: Floats
    """By pCPU."""
    available: Floats
    """By pCPU: the share of time not stolen."""
    sibling: Ints
    """By pCPU: index of its SMT sibling, or -1."""
    node: Ints
    """By pCPU."""
    slice_s: float
    smt_ratio: float
    remote_slowdown_ratio: float
    cpu: Ints = field(init=False)
    """By thread: index of its one pCPU, or 0."""
    bins: Ints = field(init=False)
    """By kind of figure and thread: where ``_pressure`` sums it up."""
    thread_available: Floats = field(init=False)
    """By thread: the share of time its pCPUs are not stolen."""
    alike: bool = field(init=False)
    """All pCPUs run at speed 1, whatever the others do."""

    def __post_init__(self) -> None:
        kinds = (len(self.speed) + 1) * np.arange(4)[:, None]
        cpu = np.maximum(self.pinned_cpu, 0)
        available = self.available[cpu]
        for pool in self.pools:
            available[pool.threads] = self.available[pool.cpus].mean()
        alike = not (np.any(self.sibling >= 0) or np.any(self.speed != 1.0))
        object.__setattr__(self, "cpu", cpu)
        object.__setattr__(self, "bins", (self.pinned_cpu + 1 + kinds).ravel())
        object.__setattr__(self, "thread_available", available)
        object.__setattr__(self, "alike", alike)


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the threads want, by thread."""

    closed: Bools
    think_ratio: Floats
    """Of closed loops: think / work at speed 1."""
    rate: Floats
    """Of open ones: work to be done per second at speed 1, backlog included."""
    work_s: Floats
    """Length of one piece of work at speed 1; infinite for hogs."""
    think_s: Floats
    """Pause between two pieces of work."""
    shares: Floats
    guest: Ints
    quota: Floats
    """Most of a pCPU it may use; infinite: no limit."""
    memory_node: Ints
    """Or -1: near everywhere."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The equilibrium: by thread, in pCPUs, and by pCPU."""

    run: Floats
    wait: Floats
    speed: Floats
    """Work done per run time."""
    busy: Floats
    """By pCPU."""
    presence: Floats
    """Where the next search for an equilibrium may begin."""


def share(crowd: Crowd, layout: Layout, presence: Floats) -> Rates:
    """Return the equilibrium, searched from ``presence``."""
    scene = _scene(crowd, layout)
    busy = np.zeros(len(layout.speed))
    cap = np.full(len(presence), np.inf)
    spread = tuple(np.full(len(pool.cpus), 1.0 / len(pool.cpus)) for pool in layout.pools)
    speed = np.ones(len(presence))
    pair = np.empty((2, len(presence)))
    for _ in range(_ITERATIONS):
        if scene.uneven:
            speed = _thread_speed(crowd, layout, busy, spread)
        alone = crowd.shares if scene.single else _guest_weight(crowd, presence)
        weight = np.minimum(alone, cap)
        pressure = _pressure(presence, weight, scene, spread)
        spread = pressure.spread
        excess, fewer = _excess(presence, weight, pressure, layout, cap)
        if scene.runs is not None:
            gone = _soon_gone(presence, weight, scene.runs)
            excess = np.maximum(excess - gone, 0.0)
            rest = _rest_of_run(crowd, presence, weight, excess, pressure, layout)
            excess = np.maximum(excess, rest)
        pair[0] = excess
        np.multiply(excess, fewer, out=pair[1])
        present, run, met = _answer(scene, speed, pair)
        before, busy = busy, _on_cpus(run[0], spread, layout)
        settled = _near(met[1], presence) and _near(busy, before)
        presence = met[1]
        if settled:
            break
    got = run[0]
    if scene.runs is not None or scene.limited:
        got = _use_gaps(got, present[0], busy, crowd, layout)
        busy = _on_cpus(got, spread, layout)
    if layout.pools:
        got = _use_pool_gaps(got, present[0], busy, pressure, crowd, layout)
        busy = _on_cpus(got, spread, layout)
    got, busy = _fit(got, busy, spread, layout)
    return Rates(got, np.maximum(present[0] - got, 0.0), speed, busy, presence)


@dataclass(frozen=True, slots=True)
class _Scene:
    """A crowd in its layout, and what of both does not change while the equilibrium is sought."""

    crowd: Crowd
    layout: Layout
    single: bool
    """Every guest has one thread."""
    uneven: bool
    """Some pCPU is slower than others for somebody."""
    runs: "_Runs | None"
    """Where some pinned thread's work is shorter than a slice."""
    limited: bool
    """Some thread has a quota."""


def _scene(crowd: Crowd, layout: Layout) -> _Scene:
    near = not (crowd.memory_node >= 0).any()
    short = (crowd.work_s < layout.slice_s) & (layout.pinned_cpu >= 0)
    return _Scene(
        crowd,
        layout,
        single=bool(np.bincount(crowd.guest).max(initial=0) <= 1),
        uneven=not (near and layout.alike),
        runs=_runs(crowd, layout) if short.any() else None,
        limited=bool(np.isfinite(crowd.quota).any()),
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """How long pinned threads run at a stretch at most: by pCPU, the shortest first."""

    threads: Ints
    length_s: Floats
    first: Ints
    """By place: the first place of the same pCPU."""
    hog: Bools


def _runs(crowd: Crowd, layout: Layout) -> _Runs:
    length_s = np.minimum(crowd.work_s, layout.slice_s)
    pinned = np.flatnonzero(layout.pinned_cpu >= 0)
    threads = pinned[np.lexsort((length_s[pinned], layout.pinned_cpu[pinned]))]
    cpus = layout.pinned_cpu[threads]
    hog = np.isinf(crowd.work_s[threads])
    return _Runs(threads, length_s[threads], np.searchsorted(cpus, cpus), hog)


def _guest_weight(crowd: Crowd, presence: Floats) -> Floats:
    """Return each thread's part of its guest's shares."""
    together = np.bincount(crowd.guest, presence)[crowd.guest]
    weight: Floats = crowd.shares / (1.0 + np.maximum(together - presence, 0.0))
    return weight


def _near(new: Floats, old: Floats) -> bool:
    return float(np.abs(new - old).max(initial=0.0)) < _TOLERANCE


@dataclass(frozen=True, slots=True)
class _Pressure:
    """Weighted presence by pCPU, what makes it up, and each pool's part of it."""

    total: Floats
    covariance: Floats
    """Of weight and number of those present."""
    count: Floats
    squares: Floats
    spread: tuple[Floats, ...]
    """By pool: the part of its threads on each of its pCPUs; adds up to 1."""
    met: tuple[Floats, ...]
    """By pool: the part of each of its pCPUs' threads that lies below its threads' level."""


def _pressure(
    presence: Floats, weight: Floats, scene: _Scene, spread: tuple[Floats, ...]
) -> _Pressure:
    """Return the pressure once each pool has filled up among the others, as ``spread`` last."""
    layout = scene.layout
    kinds = np.empty((4, len(presence)))
    kinds[0] = weight * presence
    kinds[1] = kinds[0] * (1.0 - presence)
    kinds[2] = presence
    kinds[3] = presence * presence
    width = len(layout.speed) + 1
    total = np.bincount(layout.bins, kinds.ravel(), 4 * width).reshape(4, width)[:, 1:]
    amounts = [kinds[:, pool.threads].sum(axis=1) for pool in layout.pools]
    for pool, part, amount in zip(layout.pools, spread, amounts, strict=True):
        total[:, pool.cpus] += np.outer(amount, part)
    parts, mets = [], []
    for pool, old, amount in zip(layout.pools, spread, amounts, strict=True):
        others = np.maximum(total[:, pool.cpus] - np.outer(amount, old), 0.0)
        part, met = _spread_pool(others, amount, pool.first)
        total[:, pool.cpus] = others + np.outer(amount, part)
        parts.append(part)
        mets.append(met)
    return _Pressure(total[0], total[1], total[2], total[3], tuple(parts), tuple(mets))


def _spread_pool(others: Floats, amount: Floats, first: Bools) -> tuple[Floats, Floats]:
    """Return a pool's part on each pCPU, and the part of all there that it meets."""
    number, weight = float(amount[2]), float(amount[0])
    room = float(np.maximum(1.0 - others[2], 0.0).sum())
    crowded = min(1.0, max(0.0, (number / max(room, _TINY) - 1.0) / _FILLING_UP))
    by_number, level = _fill_cores(others[2], number, first)
    met = _below(level, others[2] + number * by_number)
    if crowded == 0.0:
        return by_number, met
    by_weight, level = _fill(others[0], weight)
    part = by_number + crowded * (by_weight - by_number)
    return part, met + crowded * (_below(level, others[0] + weight * part) - met)


def _below(level: float, height: Floats) -> Floats:
    return np.minimum(1.0, level / np.maximum(height, _TINY))


def _by_cpu(layout: Layout, values: Floats) -> Floats:
    """Return sums by pCPU over the threads pinned there."""
    bins = layout.bins[: len(values)]
    return np.asarray(np.bincount(bins, values, len(layout.speed) + 1)[1:], np.float64)


def _fill_cores(ground: Floats, amount: float, first: Bools) -> tuple[Floats, float]:
    """Return how a pool spreads: over first pCPUs of cores, then over second ones, then evenly."""
    room = np.maximum(1.0 - ground, 0.0)
    if bool(first.all()) or amount >= room.sum():
        return _fill(ground, amount)
    part = np.zeros(len(ground))
    if amount <= room[first].sum():
        part[first], level = _fill(ground[first], amount)
        return part, level
    rest = amount - float(room[first].sum())
    part[first] = room[first]
    part[~first] = rest * _fill(ground[~first], rest)[0]
    return part / amount, 1.0


def _fill(ground: Floats, amount: float) -> tuple[Floats, float]:
    """Return how ``amount`` of water spreads over this ground, and its level."""
    if amount <= _TINY:
        lowest = ground <= ground.min() + _TINY
        return lowest / lowest.sum(), float(ground.min())
    order = np.sort(ground)
    levels = (amount + np.cumsum(order)) / np.arange(1, len(order) + 1)
    level = float(levels[np.flatnonzero(levels > order)[-1]])
    part = np.maximum(level - ground, 0.0)
    return part / part.sum(), level


def _excess(
    presence: Floats, weight: Floats, pressure: _Pressure, layout: Layout, cap: Floats
) -> tuple[Floats, Floats]:
    """Return F - 1 by thread, and the factor by which others' F - 1 is smaller without it.

    Lowers in ``cap`` the weights that can't be used.
    """
    cpu = layout.cpu
    excess = np.maximum(pressure.total[cpu] - weight * presence, 0.0) / weight
    fewer = _without_one(pressure.count, pressure.squares)[cpu]
    for pool, met in zip(layout.pools, pressure.met, strict=True):
        who, servers = pool.threads, len(pool.cpus)
        others = _others(pool, met, presence[who], weight[who], pressure)
        excess[who] = _mean_excess(others, weight[who], servers)
        fewer[who] = _without_one(
            pressure.count[pool.cpus].sum(), pressure.squares[pool.cpus].sum()
        )
        fullest = others.weight + others.slope * np.maximum(servers - others.count, 0.0)
        cap[who] = np.maximum(fullest, _TINY) / (servers - 1)
    return excess, fewer


def _soon_gone(presence: Floats, weight: Floats, runs: _Runs) -> Floats:
    """Return by how much F is smaller by thread, since others leave before a slice is over.

    That is the sum over others of weight x presence x (1 - their run / own run)+, in own weights.
    Hogs are left out: what they get is what others leave over.
    """
    load = (weight * presence)[runs.threads]
    loads, lengths = (np.cumsum(what) - what for what in (load, load * runs.length_s))
    gone = loads - loads[runs.first] - (lengths - lengths[runs.first]) / runs.length_s
    smaller = np.zeros(len(presence))
    smaller[runs.threads] = np.where(runs.hog, 0.0, gone) / weight[runs.threads]
    return smaller


def _rest_of_run(
    crowd: Crowd,
    presence: Floats,
    weight: Floats,
    excess: Floats,
    pressure: _Pressure,
    layout: Layout,
) -> Floats:
    """Return F - 1 by pinned thread if all it waited for was the rest of the run it meets."""
    cpu = layout.cpu
    load = weight * presence
    length = load * np.minimum(crowd.work_s, layout.slice_s)
    others = np.maximum(pressure.total[cpu] - load, _TINY)
    lengths = _on_cpus(length, pressure.spread, layout)[cpu] - length
    mean = np.clip(lengths / others, _TINY, layout.slice_s)
    think = np.clip(crowd.think_s, 1e-3 * mean, 1e3 * mean)
    rest = mean / -np.expm1(-mean / think) - think
    some = np.minimum(1.0, excess)
    return np.where(layout.pinned_cpu >= 0, some * rest / crowd.work_s, 0.0)


def _use_pool_gaps(
    run: Floats, present: Floats, busy: Floats, pressure: _Pressure, crowd: Crowd, layout: Layout
) -> Floats:
    """Let a pool's threads that always want to run have what its pCPUs are not idle without them.

    The mean of 1/F, which is what they run, is above 1 over the mean F.
    """
    filled = run.copy()
    for pool in layout.pools:
        who = pool.threads[present[pool.threads] > _ALWAYS]
        count = float(pressure.count[pool.cpus].sum())
        variance = np.array(max(count - float(pressure.squares[pool.cpus].sum()), 0.0))
        idle = _mean_above(np.array(len(pool.cpus) - count), np.sqrt(variance))
        used = layout.available[pool.cpus].mean() * (len(pool.cpus) - idle)
        gap = float(used - busy[pool.cpus].sum())
        if len(who) and gap > _TINY:
            limit = np.minimum(present[who], np.maximum(run[who], crowd.quota[who]))
            filled[who] = np.minimum(run[who] + gap / len(who), limit)
    return filled


def _use_gaps(run: Floats, present: Floats, busy: Floats, crowd: Crowd, layout: Layout) -> Floats:
    """Let pinned threads that always want to run have what those waiting for them leave over."""
    greedy = (layout.pinned_cpu >= 0) & (present > _ALWAYS) & (crowd.work_s > layout.slice_s)
    weight = np.where(greedy & (run < crowd.quota), crowd.shares, 0.0)
    weights = _by_cpu(layout, weight)
    gap = np.maximum(layout.available - busy, 0.0) / np.maximum(weights, _TINY)
    filled = run + weight * gap[layout.cpu]
    return np.minimum(filled, np.minimum(present, np.maximum(run, crowd.quota)))


def _without_one(count: Floats, squares: Floats) -> Floats:
    """Return the factor by which a crowd is smaller for one of it: (n - 2) / (n - 1).

    n is the number of equally present threads that are as uneven as these.
    """
    crowd = np.maximum(count * count / np.maximum(squares, _TINY), 1.0)
    smaller: Floats = np.maximum(crowd - 2.0, 0.0) / np.maximum(crowd - 1.0, _TINY)
    return smaller


@dataclass(frozen=True, slots=True)
class _Others:
    """Whom each thread of a pool meets there."""

    weight: Floats
    """Mean weight of those present."""
    count: Floats
    """Their mean number."""
    deviation: Floats
    """Standard deviation of their number."""
    slope: Floats
    """Weight that comes with one more."""


def _others(
    pool: Pool, met: Floats, presence: Floats, weight: Floats, pressure: _Pressure
) -> _Others:
    total, covariance, count, squares = (
        float((figure[pool.cpus] * met).sum())
        for figure in (pressure.total, pressure.covariance, pressure.count, pressure.squares)
    )
    own_variance = presence * (1.0 - presence)
    number = np.maximum(count - presence, 0.0)
    mean = np.maximum(total - weight * presence, 0.0)
    variance = np.maximum(count - squares - own_variance, 0.0)
    typical = np.where(number > _TINY, mean / np.maximum(number, _TINY), weight)
    regression = np.maximum(covariance - weight * own_variance, 0.0) / np.maximum(variance, _TINY)
    slope = np.where(variance > _STEADY, regression, typical)
    return _Others(mean, number, np.sqrt(variance), slope)


def _mean_excess(others: _Others, weight: Floats, servers: int) -> Floats:
    """Return E[W - (c - 1); N > c - 1] / c for each thread's own weight.

    With ``slope`` s in units of that weight, W = s (N - (c - 1)) + what W is where N = c - 1. The
    first part begins at 0; the second is there at once with one too many: N is a whole number.
    """
    over, slope = others.count - (servers - 1), others.slope / weight
    growing = slope * _mean_above(over, others.deviation)
    jump = others.weight / weight - slope * over - (servers - 1)
    chance, _ = _normal(over - 0.5, others.deviation)
    return np.maximum(growing + jump * chance, 0.0) / servers


def _mean_above(distance: Floats, deviation: Floats) -> Floats:
    """Return E[X+] for a normal X with mean ``distance``."""
    chance, density = _normal(distance, deviation)
    return np.maximum(distance * chance + deviation * density, 0.0)


def _normal(distance: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Return the chance that a normal X with mean ``distance`` is above 0, and its density there.

    The density is that of the standardised X.
    """
    z = np.clip(distance / np.maximum(deviation, 1e-9), -8.0, 8.0)
    # tanh form of the normal distribution function, good to 2e-4
    chance = 0.5 * (1.0 + np.tanh(0.7978845608 * (z + 0.044715 * z**3)))
    return chance, 0.3989422804 * np.exp(-0.5 * z * z)


def _answer(scene: _Scene, speed: Floats, excess: Floats) -> tuple[Floats, Floats, Floats]:
    """Return what threads do whose work is made longer by 1 + ``excess``.

    That is their presence, their run time, and the presence that others meet.
    """
    crowd = scene.crowd
    unhindered = (1.0 + excess) / scene.layout.thread_available
    think, rate, factor = crowd.think_ratio, crowd.rate, unhindered
    if scene.uneven:
        think, rate = think * speed, rate / speed
    if scene.limited:  # a throttled thread waits until its run time is down to its quota
        slowest = 1.0 / crowd.quota
        throttled = np.where(crowd.closed, slowest - think, slowest * (rate > crowd.quota))
        factor = np.maximum(unhindered, throttled)
    present = np.where(crowd.closed, factor / (factor + think), np.minimum(1.0, rate * factor))
    run = present / factor
    # Who waits for his quota's next period is in nobody's way.
    return present, run, run * unhindered


def _thread_speed(crowd: Crowd, layout: Layout, busy: Floats, spread: tuple[Floats, ...]) -> Floats:
    """Return work per run time: speed of its pCPUs, SMT sibling, remote memory."""
    sibling_busy = np.where(layout.sibling >= 0, busy[np.maximum(layout.sibling, 0)], 0.0)
    speed = layout.speed * (1.0 - (1.0 - layout.smt_ratio) * np.minimum(sibling_busy, 1.0))
    cpu = layout.cpu
    mine = speed[cpu]
    remote = (crowd.memory_node >= 0) & (layout.node[cpu] != crowd.memory_node)
    away = remote.astype(np.float64)
    for pool, part in zip(layout.pools, spread, strict=True):
        mine[pool.threads] = part @ speed[pool.cpus]
        wanted = crowd.memory_node[pool.threads]
        remote_cpus = layout.node[pool.cpus][None, :] != wanted[:, None]
        away[pool.threads] = np.where(wanted >= 0, remote_cpus @ part, 0.0)
    slowed: Floats = mine / (1.0 + layout.remote_slowdown_ratio * away)
    return slowed


def _on_cpus(values: Floats, spread: tuple[Floats, ...], layout: Layout) -> Floats:
    """Return sums by pCPU over all threads, those of pools as they are spread."""
    sums = _by_cpu(layout, values)
    for pool, part in zip(layout.pools, spread, strict=True):
        sums[pool.cpus] += part * values[pool.threads].sum()
    return sums


def _fit(
    run: Floats, busy: Floats, spread: tuple[Floats, ...], layout: Layout
) -> tuple[Floats, Floats]:
    """Shorten run times where a pCPU would be more than busy: the equilibrium is approximate."""
    over = np.minimum(1.0, layout.available / np.maximum(busy, _TINY))
    if bool((over >= 1.0).all()):
        return run, busy
    factor = over[layout.cpu]
    for pool, part in zip(layout.pools, spread, strict=True):
        factor[pool.threads] = (part * over[pool.cpus]).sum()
    return run * factor, np.minimum(busy * over, layout.available)

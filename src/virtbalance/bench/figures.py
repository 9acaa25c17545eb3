"""Figures of runs: what happened on pCPUs and in balloons, drawn from a run's series.

Each function returns a matplotlib figure. Time runs from left to right in seconds; a dotted line
marks something that happened on the host.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 9.0
_INK, _PAPER, _GRID, _SOFT = "#222831", "#ffffff", "#e3e6ea", "#9aa3ad"
_ACCENT, _WARN = "#1f6feb", "#d1495b"
_GOOD = "#0b6b3a"
_MANY = 24
"""With more guests than this no legend says which colour is whose."""
_PANELS = 12
"""Guests that get a panel of their own."""
_WIDE_RANGE = 100.0
"""An axis on which the largest is so many times the middle one is logarithmic."""

Series = Mapping[str, Any]


def figures_of(series: Series) -> dict[str, "Figure"]:
    """Return all figures of a run by a short name."""
    makers = _CPU if series["role"] == "cpu" else _MEMORY
    made = {name: make(series) for name, make in makers.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of several contenders; each has median, low and high, or nothing."""

    name: str
    unit: str
    values: Sequence[tuple[float, float, float] | None]
    best: Sequence[bool]


def comparison(names: Sequence[str], columns: Sequence[Compared]) -> "Figure":
    """Draw contenders side by side: one panel a metric, one row a contender."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _panels(1, max(1.0, 0.22 * len(names)), columns=len(columns))
    rows = range(len(names))
    for axis, column in zip(axes, columns, strict=True):
        axis.grid(visible=True, axis="both", color=_GRID, linewidth=0.8)
        for row, value, best in zip(rows, column.values, column.best, strict=True):
            if value is not None:
                median, low, high = value
                colour = _GOOD if best else _SOFT
                axis.plot([low, high], [row, row], color=colour, linewidth=1.4)
                axis.plot([median], [row], "o", color=colour, markersize=6 if best else 4)
        medians = [value[0] for value in column.values if value is not None]
        if min(medians) >= 0 and max(medians) > _WIDE_RANGE * max(1.0, float(np.median(medians))):
            axis.set_xscale("symlog", linthresh=1.0)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(nbins=3))
        axis.set_yticks(rows, names if axis is axes[0] else [])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel(f"{column.name}, {column.unit}", fontsize=8, color=_INK)
    _title(figure, "Who does how well", "green: the best, and what is as good; line: 95 %")
    return figure


# CPU


def _use(series: Series) -> "Figure | None":
    """Draw the use of every pCPU over time, split by vCPU where there are few."""
    cpus = series["cpus"]
    if "run" not in series or len(cpus) > 16:
        return _heat(series)
    figure, axes = _panels(len(cpus), 0.85)
    times = np.array([0.0, *series["times_s"]])
    run, homes, use = (_from_zero(series[key]) for key in ("run", "homes", "use"))
    colours = np.array(_colours(len(series["vcpus"])))
    for column, (axis, cpu) in enumerate(zip(axes, cpus, strict=True)):
        shares = np.where(homes == column, run, 0.0)
        pinned = shares.sum(axis=1)
        here = shares.any(axis=0)
        if here.any():
            axis.stackplot(times, shares.T[here], colors=colours[here], linewidth=0, step="pre")
        floating = np.maximum(pinned, use[:, column])
        axis.fill_between(times, pinned, floating, color="#cfd6dd", linewidth=0, step="pre")
        axis.set_ylim(0, 1.05)
        axis.set_yticks([0, 1], ["0", "1"])
        _name(axis, f"pCPU {cpu}")
    if len(series["vcpus"]) <= _MANY:
        _legend(figure, [*colours, "#cfd6dd"], [*series["vcpus"], "free to roam"])
    _time_axis(axes, series)
    _title(
        figure, "Use of each pCPU (1: all of it)", "colour: vCPU pinned there; grey: free to roam"
    )
    return figure


def _from_zero(rows: Sequence[Sequence[float | None]]) -> "np.typing.NDArray[np.float64]":
    """Return the rows with the first one twice: a step's value holds from its beginning."""
    values = np.array(rows, float)
    return np.concatenate([values[:1], values])


def _heat(series: Series) -> "Figure":
    """Draw pCPU use of a large host as a map: one row a pCPU."""
    figure, (axis,) = _panels(1, 3.2)
    use = np.array(series["use"], float).T
    end_s = series["times_s"][-1]
    image = axis.imshow(
        use,
        aspect="auto",
        interpolation="nearest",
        cmap="magma_r",
        vmin=0,
        vmax=1,
        extent=(0, end_s, len(use) - 0.5, -0.5),
    )
    axis.set_ylabel("pCPU")
    axis.grid(visible=False)
    bar = figure.colorbar(image, ax=axis, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)
    _time_axis([axis], series)
    _title(figure, "Use of each pCPU", "one row a pCPU; darker is busier")
    return figure


def _strips(series: Series) -> "Figure | None":
    """Draw where every vCPU was: one strip each, coloured by pCPU."""
    if "homes" not in series:
        return None
    from matplotlib.colors import ListedColormap

    homes = np.array(series["homes"]).T
    count = len(series["cpus"])
    figure, (axis,) = _panels(1, max(1.4, 0.19 * len(homes)))
    colours = ListedColormap([_PAPER, "#d7dce1", *_colours(count)])
    axis.imshow(
        homes + 2,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-0.5,
        vmax=count + 1.5,
        extent=(0, series["times_s"][-1], len(homes) - 0.5, -0.5),
    )
    if len(homes) <= _MANY:
        axis.set_yticks(range(len(homes)), series["vcpus"], fontsize=7)
    axis.set_yticks(np.arange(0.5, len(homes) - 0.5), minor=True)
    axis.grid(visible=False)
    axis.grid(which="minor", axis="y", color=_PAPER, linewidth=1.5)
    axis.tick_params(which="minor", length=0)
    if count <= _MANY:
        names = [f"pCPU {cpu}" for cpu in series["cpus"]]
        _legend(figure, [*_colours(count), "#d7dce1"], [*names, "several"])
    _time_axis([axis], series)
    _title(figure, "Where each vCPU was", "a change of colour is a pin")
    return figure


def _pins(series: Series) -> "Figure":
    """Draw how many pins each decision changed."""
    from matplotlib.ticker import MaxNLocator

    figure, (axis,) = _panels(1, 1.3)
    pins = series["pins"]
    times = [at for at, _ in pins]
    counts = [count for _, count in pins]
    if pins:
        axis.vlines(times, 0, counts, color=_ACCENT, linewidth=1.5)
        axis.plot(times, counts, "o", color=_ACCENT, markersize=3)
        axis.set_ylim(0, max(counts) * 1.2)
    else:
        axis.set_ylim(0, 1)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    _time_axis([axis], series)
    _title(figure, "Affinities changed by each decision", f"{sum(counts)} in all")
    return figure


def _fairness(series: Series) -> "Figure":
    """Draw Jain's index over time."""
    figure, (axis,) = _panels(1, 1.3)
    values = np.array(series["fairness"], float)
    axis.plot(series["times_s"], values, color=_ACCENT, linewidth=1.4)
    low = float(np.nanmin(values)) if len(values) else 0.0
    axis.set_ylim(min(0.9, low - 0.02), 1.005)
    _time_axis([axis], series)
    _title(figure, "Fairness", "Jain's index of got over wanted; 1: all alike")
    return figure


# Memory


def _guests(series: Series) -> "Figure":
    """Draw used, usable, balloon, target and want of each guest."""
    times = np.array(series["times_s"])
    columns = {
        key: np.array(series[f"{key}_mib"], float) for key in ("used", "actual", "target", "want")
    }
    shown = _liveliest(columns["actual"])
    names = [series["guests"][guest] for guest in shown]
    figure, axes = _panels(len(names), 0.95)
    top = np.nanmax(columns["actual"]) * 1.08 if len(times) else 1.0
    for guest, axis, name in zip(shown, axes, names, strict=True):
        used, actual = columns["used"][:, guest], columns["actual"][:, guest]
        axis.fill_between(times, 0, used, color="#7aa6e0", linewidth=0)
        axis.fill_between(times, used, actual, color="#cfe0f5", linewidth=0)
        axis.plot(times, actual, color=_INK, linewidth=1.0)
        axis.plot(times, columns["target"][:, guest], color=_ACCENT, linewidth=0.9, linestyle="--")
        axis.plot(times, columns["want"][:, guest], color=_WARN, linewidth=0.9)
        axis.set_ylim(0, top)
        _name(axis, name)
    _legend(
        figure,
        ["#7aa6e0", "#cfe0f5", _INK, _ACCENT, _WARN],
        ["used", "usable", "balloon", "target", "programs want"],
    )
    _time_axis(axes, series)
    count = len(series["guests"])
    note = "" if len(shown) == count else f"; of {count} the {_PANELS} that change most"
    _title(figure, "Memory of each guest", f"MiB{note}")
    return figure


def _liveliest(sizes: "np.typing.NDArray[np.float64]") -> Sequence[int]:
    """Return the columns of the guests whose balloons move most, in their order."""
    moved = np.nansum(np.abs(np.diff(sizes, axis=0)), axis=0)
    return sorted(int(guest) for guest in np.argsort(-moved, kind="stable")[:_PANELS])


def _host(series: Series) -> "Figure":
    """Draw all balloons stacked on the host's own use, against what the host has."""
    figure, (axis,) = _panels(1, 2.6)
    times = np.array(series["times_s"])
    actual = np.nan_to_num(np.array(series["actual_mib"], float))
    other = np.array(series["other_mib"], float)
    layers = np.vstack([other, actual.T]) / 1024
    axis.stackplot(times, layers, colors=["#b6bec7", *_colours(actual.shape[1])], linewidth=0)
    axis.axhline(series["host_mib"] / 1024, color=_WARN, linewidth=1.2)
    axis.annotate(
        "host",
        (times[-1], series["host_mib"] / 1024),
        ha="right",
        va="bottom",
        fontsize=8,
        color=_WARN,
    )
    axis.set_ylim(0, max(series["host_mib"] / 1024, float(layers.sum(axis=0).max())) * 1.1)
    if actual.shape[1] <= _MANY:
        names = ["host's own", *series["guests"]]
        _legend(figure, ["#b6bec7", *_colours(actual.shape[1])], names)
    axis.set_ylabel("GiB", fontsize=8, color=_INK)
    _time_axis([axis], series)
    _title(figure, "Balloons on the host", "what guests have, stacked")
    return figure


def _performance(series: Series) -> "Figure":
    """Draw mean speed and fairness over time."""
    figure, axes = _panels(2, 1.0)
    for axis, key, name in zip(axes, ("performance", "fairness"), ("speed", "Jain"), strict=True):
        values = np.array(series[key], float)
        axis.plot(series["times_s"], values, color=_ACCENT, linewidth=1.4)
        low = values[~np.isnan(values)].min(initial=1.0)
        axis.set_ylim(min(0.9, float(low) - 0.05), 1.02)
        _name(axis, name)
    _time_axis(axes, series)
    _title(figure, "Speed and fairness", "mean speed of guests; Jain's index of got over entitled")
    return figure


_CPU: Mapping[str, Callable[[Series], "Figure | None"]] = {
    "use": _use,
    "strips": _strips,
    "pins": _pins,
    "fairness": _fairness,
}
_MEMORY: Mapping[str, Callable[[Series], "Figure | None"]] = {
    "guests": _guests,
    "host": _host,
    "speed": _performance,
}


# Looks


def _panels(count: int, height: float, columns: int = 1) -> "tuple[Figure, Sequence[Axes]]":
    """Return a figure with so many panels under each other; height of one in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(
            figsize=(_WIDTH, count * height + 0.9), layout="constrained", facecolor=_PAPER
        )
        axes = figure.subplots(count, columns, sharex=columns == 1, squeeze=False).flatten()
    for axis in axes:
        axis.set_facecolor(_PAPER)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color(_SOFT)
        axis.tick_params(colors=_INK, labelsize=8, length=0)
        axis.grid(visible=True, axis="y", color=_GRID, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, list(axes)


def _time_axis(axes: "Sequence[Axes]", series: Series) -> None:
    for axis in axes:
        axis.set_xlim(0, series["duration_s"])
        for event in series["events"][:20]:
            axis.axvline(event["at_s"], color=_SOFT, linewidth=0.8, linestyle=":")
    axes[-1].set_xlabel("time, s", fontsize=8, color=_INK)


def _name(axis: "Axes", name: str) -> None:
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=_INK)


def _title(figure: "Figure", title: str, note: str) -> None:
    figure.suptitle(f"{title}  ·  {note}", x=0.01, ha="left", fontsize=10, color=_INK)


def _legend(figure: "Figure", colours: Sequence[Any], names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for colour, name in zip(colours, names, strict=True)]
    figure.legend(
        handles=handles,
        loc="outside right upper",
        frameon=False,
        fontsize=7,
        handlelength=1.0,
        handleheight=1.0,
        borderaxespad=0.3,
    )


def _colours(count: int) -> list[Any]:
    """Return colours that differ, also for those who see red and green alike where they are few."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if count <= len(_NINE):
        return list(_NINE[:count])
    return [to_hex(mpl.colormaps["viridis"](at / (count - 1))) for at in range(count)]


_NINE = (
    "#332288",
    "#88ccee",
    "#117733",
    "#ddcc77",
    "#cc6677",
    "#44aa99",
    "#882255",
    "#999933",
    "#aa4499",
)
"""Paul Tol's "muted" scheme, dark and light in turn."""

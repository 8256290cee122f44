"""A dashboard's JSON and Prometheus' answers as one picture, each panel with its number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite, nan
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

_COLUMNS: Final = 24
_INCH: Final = 0.62  # of a column of the grid
_ROW: Final = 0.29  # inches of a row
_HEAD: Final = 0.75  # inches above the grid
_DPI: Final = 100
_LEGEND: Final = 6  # series that a legend names
_GAP: Final = 5.0  # seconds without a point
_COLOURS: Final = (
    *("#3f7fbf", "#e0752d", "#4c9a52", "#b3479b", "#c9a227", "#5aa9b8", "#8a5fc4", "#c4483e"),
    *("#7a8b3a", "#95654a", "#4b5f9e", "#d68aa8"),
)
_PLAIN: Final = {"percentunit": (100, "%"), "reqps": (1, "/s"), "celsius": (1, "°C"), "watt": (1, "W")}
_BAD, _GOOD, _INK, _QUIET, _RULE = "#b3261e", "#2c7a3f", "#1f272d", "#66727b", "#dde2e6"


@dataclass(frozen=True, slots=True)
class Line:
    """One series: seconds since 1970 and values; what is no number is left out, and a gap stays one."""

    label: str
    times: Sequence[float]
    values: Sequence[float]

    @classmethod
    def of(cls, label: str, points: Sequence[tuple[float, str]]) -> "Line":
        known = [(at, float(text)) for at, text in points if isfinite(float(text))]
        whole = [
            one
            for before, (at, value) in zip([None, *known], known, strict=False)
            for one in (
                *([(at, nan)] if before is not None and at - before[0] > _GAP else []),
                (at, value),
            )
        ]
        return cls(label, [at for at, _ in whole], [value for _, value in whole])

    @property
    def numbers(self) -> list[float]:
        return [value for value in self.values if isfinite(value)]


def draw(
    board: Mapping[str, Any],
    found: Mapping[int, Sequence[Line]],
    path: Path,
    *,
    span: tuple[float, float],
    notes: str,
) -> None:
    """`found` are the lines of each panel, by its id; `span` is the time shown, `notes` beside the title."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = plt.figure(figsize=(_COLUMNS * _INCH, _HEAD + rows * _ROW), facecolor="#f1f3f4")
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.3 / height, board["title"], size=15, weight="bold", color=_INK, va="center")
    figure.text(0.988, 1 - 0.3 / height, notes, size=8.5, color=_QUIET, va="center", ha="right")
    for panel in board["panels"]:
        lines = [line for line in found[panel["id"]] if line.values]
        _Frame(figure, panel, span).draw(lines)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


class _Frame:
    """A panel's place: a card with its number, its title and what is in it."""

    def __init__(self, figure: Figure, panel: Mapping[str, Any], span: tuple[float, float]) -> None:
        self.figure, self.panel, self.span = figure, panel, span
        place, height = panel["gridPos"], figure.get_figheight()
        pad = 0.06  # inches
        self.left = (place["x"] * _INCH + pad) / figure.get_figwidth()
        self.width = (place["w"] * _INCH - 2 * pad) / figure.get_figwidth()
        self.top = 1 - (_HEAD + place["y"] * _ROW) / height
        self.height = (place["h"] * _ROW - 2 * pad) / height

    def draw(self, lines: Sequence[Line]) -> None:
        self._card()
        if not lines:
            self._say_nothing()
        elif self.panel["type"] == "stat":
            self._stat(lines[0])
        else:
            self._plot(lines)

    def _card(self) -> None:
        card = FancyBboxPatch(
            (self.left, self.top - self.height), self.width, self.height,
            boxstyle="round,pad=0,rounding_size=0.003", transform=self.figure.transFigure,
            facecolor="white", edgecolor=_RULE, linewidth=0.8, zorder=-1,
        )  # fmt: skip
        self.figure.add_artist(card)
        y = self.top - 0.17 / self.figure.get_figheight()
        x = self.left + 0.17 / self.figure.get_figwidth()
        badge = {"boxstyle": "circle,pad=0.25", "facecolor": _INK, "edgecolor": "none"}
        self.figure.text(
            x, y, str(self.panel["id"]), size=7.5, color="white", weight="bold", ha="center", va="center",
            bbox=badge,
        )  # fmt: skip
        beside = x + 0.18 / self.figure.get_figwidth()
        self.figure.text(beside, y, self.panel["title"], size=9.5, weight="bold", color=_INK, va="center")

    def _middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top - self.height * 0.55

    def _say_nothing(self) -> None:
        said = f"no data: it needs {self.panel['needs']}" if self.panel.get("needs") else "no data"
        x, y = self._middle()
        self.figure.text(x, y, said, size=9, color=_QUIET, style="italic", ha="center", va="center")

    def _stat(self, line: Line) -> None:
        x, y = self._middle()
        value = line.values[-1]
        colour = _colour(value, self.panel)
        self.figure.text(
            x, y, _exact(value, _unit(self.panel)), size=26, weight="bold", color=colour, ha="center",
            va="center",
        )  # fmt: skip

    def _plot(self, lines: Sequence[Line]) -> None:
        height, width = self.figure.get_figheight(), self.figure.get_figwidth()
        columns = 2 if self.panel["gridPos"]["w"] < 12 else 4  # noqa: PLR2004 - half of the grid
        labels = [line for line in lines if line.label][:_LEGEND]
        rest = len([line for line in lines if line.label]) - len(labels)
        below = 0.30 + 0.135 * (-(-len(labels) // columns) + bool(rest))
        axes = self.figure.add_axes(
            (
                self.left + 0.62 / width,
                self.top - self.height + below / height,
                self.width - 0.76 / width,
                self.height - (below + 0.36) / height,
            )
        )
        for number, line in enumerate(lines):
            colour = _COLOURS[number % len(_COLOURS)]
            times = [datetime.fromtimestamp(at, UTC) for at in line.times]
            axes.plot(times, line.values, color=colour, linewidth=1.3, label=line.label)  # type: ignore[arg-type]
            axes.fill_between(times, line.values, color=colour, alpha=0.07, linewidth=0)  # type: ignore[arg-type]
        self._dress(axes, lines)
        if labels:
            under = (-0.52 / (self.width * width - 0.76), -0.27 / (self.height * height - below - 0.36))
            handles = axes.get_lines()[: len(labels)]
            title = f"and {rest} more" if rest else None
            axes.legend(
                handles=handles, loc="upper left", bbox_to_anchor=under, ncols=columns, title=title,
                fontsize=6.8, title_fontsize=6.5, frameon=False, handlelength=1.1, columnspacing=1.0,
                borderaxespad=0, labelspacing=0.25, alignment="left",
            )  # fmt: skip

    def _dress(self, axes: Axes, lines: Sequence[Line]) -> None:
        unit = _unit(self.panel)
        top = max(max(line.numbers) for line in lines)
        steps = self.panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        for step in steps[1:]:
            if top > step["value"] / 3:
                axes.axhline(step["value"], color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
                top = max(top, step["value"])
        axes.set_ylim(0, top * 1.12 if top else 1)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "short" and top >= 1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_unit(value, unit)))
        axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=2, maxticks=5))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
        axes.set_xlim(*(datetime.fromtimestamp(at, UTC) for at in self.span))  # type: ignore[arg-type]
        axes.tick_params(labelsize=7, colors=_QUIET, length=2)
        axes.grid(visible=True, color=_RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_RULE)


def _unit(panel: Mapping[str, Any]) -> str:
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    return unit


def _colour(value: float, panel: Mapping[str, Any]) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    if len(steps) == 1:
        return _INK
    return _BAD if reached[-1] == "red" else _GOOD


def _exact(value: float, unit: str) -> str:
    return f"{100 * value:.4g} %" if unit == "percentunit" else in_unit(value, unit)


def in_unit(value: float, unit: str) -> str:
    """As Grafana writes the units that the dashboards use."""
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if unit == "short":
        return _scaled(value, 1000, ("", "K", "M", "G"))
    factor, name = _PLAIN[unit]
    return f"{factor * value:.3g} {name}"


def _seconds(value: float) -> str:
    if value == 0:
        return "0"
    for limit, factor, name in ((0.001, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s"), (3600, 1 / 60, "min")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {name}"
    return f"{value / 3600:.3g} h"


def _scaled(value: float, base: int, names: Sequence[str]) -> str:
    for name in names[:-1]:
        if abs(value) < base:
            return f"{value:.3g} {name}".rstrip()
        value /= base
    return f"{value:.3g} {names[-1]}"

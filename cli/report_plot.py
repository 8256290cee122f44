"""A report as a picture: arrivals, waits and tokens over time, above one another."""

from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import ConfigurationMistake


def draw(report: dict[str, Any], path: Path) -> None:
    """A PNG file. Raises `ConfigurationMistake` where matplotlib is missing or the file cannot be written."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigurationMistake("a plot needs matplotlib: pip install 'penstock[plot]'") from error
    mpl.use("Agg")
    from matplotlib import dates
    from matplotlib import pyplot as plt

    points = report["timeline"]
    times = [datetime.fromisoformat(point["at"]).astimezone() for point in points]
    figure, (jobs, waits, tokens) = plt.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    for name, colour in (("submitted", "#1f5f8b"), ("degraded", "#c78a1b"), ("failed", "#a3221b")):
        jobs.step(times, [point[name] for point in points], where="post", label=name, color=colour)
    jobs.set_ylabel("jobs")
    jobs.legend(loc="upper left", frameon=False, ncols=3)
    seconds = [None if point["wait_p95_ms"] is None else point["wait_p95_ms"] / 1000 for point in points]
    waits.plot(times, seconds, marker=".", color="#1f5f8b")
    waits.set_ylabel("wait, p95, s")
    tokens.fill_between(times, [point["tokens"] for point in points], step="post", color="#1f5f8b", alpha=0.5)
    tokens.set_ylabel("tokens")
    for axis in (jobs, waits, tokens):
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    ticks = tokens.xaxis.get_major_locator()
    clock = dates.ConciseDateFormatter(ticks, tz=times[0].tzinfo)  # type: ignore[no-untyped-call]
    tokens.xaxis.set_major_formatter(clock)
    figure.suptitle(f"Penstock, {report['total']['jobs']} jobs")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigurationMistake(
            f"cannot draw into {path}: {error}; name a .png file in a folder that exists"
        ) from error
    finally:
        plt.close(figure)

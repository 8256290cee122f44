"""The page of results and its plots, made from the benchmarks' own JSON and from nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WIDEST = 8  # bars in one plot


def write(documents: Sequence[dict[str, Any]], folder: Path, *, command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    parts = ["# Results", "", f"Written by `{command}`; the figures are in [results.json](results.json).", ""]
    for document in documents:
        parts += _section(document, folder)
    (folder / "results.md").write_text("\n".join(parts))


def _section(document: dict[str, Any], folder: Path) -> list[str]:
    name = document["benchmark"]
    lines = [f"## {name}", "", f"{document['at']}, {document['machine']}.", ""]
    lines += ["| figure | median | least | most | bound | holds |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [_row(figure) for figure in document["figures"]]
    plot = folder / f"{name}.png"
    _plot(document, plot)
    return [*lines, "", f"![{name}: medians and spread]({plot.name})", ""]


def _row(figure: dict[str, Any]) -> str:
    bound = ""
    if figure["at_most"] is not None:
        bound = f"at most {figure['at_most']:.3g}"
    if figure["at_least"] is not None:
        bound = f"at least {figure['at_least']:.3g}"
    holds = ("yes" if figure["holds"] else "**no**") if bound else ""
    values, unit = figure["values"], figure["unit"]
    numbers = f"{figure['median']:.4g} {unit} | {min(values):.4g} | {max(values):.4g}"
    return f"| {figure['name']} | {numbers} | {bound} | {holds} |"


def _plot(document: dict[str, Any], path: Path) -> None:
    """One panel per unit, so that nothing is compared with what it cannot be compared with."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    units: dict[str, list[dict[str, Any]]] = {}
    for figure in document["figures"]:
        units.setdefault(figure["unit"], []).append(figure)
    panels = [(unit, found[:_WIDEST]) for unit, found in units.items() if found]
    height = 0.7 + sum(0.34 * len(found) + 0.5 for _, found in panels)
    ratios = [len(found) + 1 for _, found in panels]
    drawing, axes = plt.subplots(
        len(panels), 1, figsize=(9, height), height_ratios=ratios, squeeze=False, layout="constrained"
    )
    for axis, (unit, found) in zip(axes[:, 0], panels, strict=True):
        medians = [one["median"] for one in found]
        below = [one["median"] - min(one["values"]) for one in found]
        above = [max(one["values"]) - one["median"] for one in found]
        axis.barh([one["name"] for one in found], medians, xerr=[below, above], color="#4477aa", capsize=2)
        axis.invert_yaxis()
        axis.set_xlabel({"x": "ratio", "": "number"}.get(unit, unit))
    drawing.savefig(path, dpi=110)
    plt.close(drawing)

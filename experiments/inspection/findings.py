"""What lies in a dataset's folder: clips, subjects, classes of every protocol, and every problem. Computes no flow."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.base import FlowDataModule
from data_modules.protocols import protocol
from data_modules.release.clip_table import Problem, rows
from data_modules.videos import VideoDataModule
from experiments.predictions import CLIP
from mer import InputError
from mer.preprocessing.clip import read_frame


def inspect(data: FlowDataModule) -> dict:
    """Look through a dataset.

    Returns:
        Ready for JSON: ``dataset``, ``root``, ``layout``, ``sources``; ``clips`` that can be used, their ``subjects``;
        ``protocols`` with the clips, subjects and clips per class that take part in each, and ``published``, the same
        as the real sheets give it; ``frames``, their rate per second and the shortest, median and longest clip from
        onset to offset; ``depth``, where the dataset has that, the clips in which every frame has a depth frame;
        ``left_out`` and ``corrected`` problems, counted, and all ``problems``.

    Raises:
        InputError: If the folder cannot be used as a whole.
    """
    everything, unreadable = _readable(data)
    problems = [*data.problems, *unreadable]
    used = everything if len(data.parts) == 1 else _labelled(data, everything, data.protocol)
    protocols = {name: _protocol(data, everything, name) for name in data.known_protocols()}
    published = {name: _published(data, name) for name in protocols}
    return {
        "dataset": data.name,
        "root": str(data.root),
        "layout": data.layout,
        "sources": data.sources,
        **_counts(used),
        "protocols": protocols,
        "published": {name: counts for name, counts in published.items() if counts},
        "frames": _frames(used),
        **_depth(data),
        "left_out": sum(not problem.used for problem in problems),
        "corrected": sum(problem.used for problem in problems),
        "problems": [asdict(problem) for problem in problems],
    }


def clips(data: FlowDataModule) -> pd.DataFrame:
    """The clips of the chosen protocol that can be used: ``dataset``, ``subject``, ``clip`` and ``target``, its class.

    Raises:
        InputError: If the folder cannot be used as a whole, or no clip takes part.
    """
    return data.label(_readable(data)[0])[CLIP]


def show(findings: Mapping, console: Console) -> None:
    """Print what ``inspect`` returns."""
    console.print(f"[bold]{findings['dataset']}[/] in {escape(findings['root'])}", highlight=False)
    text = f"{findings['layout'] or 'one layout'}; {findings['clips']} clips of {findings['subjects']} subjects"
    if frames := findings["frames"]:
        rate, length = str(frames["rate"]).strip("[]") or "an unknown number of", frames["length"]
        text += f"; {rate} frames per second, "
        text += f"{length['min']} to {length['max']}, median {length['median']:g}, frames a clip"
    if "depth" in findings:
        text += f"; {findings['depth']} clips with depth beside every frame"
    console.print(text, highlight=False)
    for source in findings["sources"]:
        console.print(escape(source), highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("protocol", "clips", "subjects", "classes", "real sheets give"):
        table.add_column(heading, justify="right" if heading in ("clips", "subjects") else "left")
    for name, counts in findings["protocols"].items():
        published = findings["published"].get(name)
        verdict = "" if published is None else "the same" if published == counts else f"[yellow]{_brief(published)}[/]"
        table.add_row(name, str(counts["clips"]), str(counts["subjects"]), _classes(counts), verdict)
    console.print(table)
    for used, title in ((False, "left out"), (True, "used, with a correction")):
        listed = [problem for problem in findings["problems"] if problem["used"] is used]
        console.print(f"\n[bold]{len(listed)} {title}[/]" if listed else f"\nnone {title}")
        for problem in listed:
            database = "" if problem["dataset"] == findings["dataset"] else problem["dataset"]
            where = " ".join(word for word in (database, problem["subject"], problem["clip"]) if word)
            action = "" if problem["action"] == "left out" else f"; [cyan]{escape(problem['action'])}[/]"
            console.print(f"  [bold]{escape(where)}[/]: {escape(problem['what'])}{action}", highlight=False)


def _readable(data: FlowDataModule) -> tuple[pd.DataFrame, list[Problem]]:
    """All clips that open, and what is wrong with frames that do not."""
    tables, problems = [], []
    for part in data.parts.values():
        if isinstance(part, VideoDataModule):
            unreadable = list(_undecodable(part))
            problems += unreadable
        else:
            unreadable = [problem for problem in part.problems if not problem.used]
        lost = {(problem.dataset, problem.subject, problem.clip) for problem in unreadable}
        kept = [(row.dataset, row.subject, row.clip) not in lost for row in rows(part.all_clips)]
        tables.append(part.all_clips[kept])
    return pd.concat(tables, ignore_index=True), problems


def _undecodable(part: VideoDataModule) -> Iterable[Problem]:
    """Clips whose onset or apex does not open; of the other frames only the size of the file is known."""
    clips = list(rows(part.all_clips))

    def open_two(row) -> str:
        sources, apex = part.frame_sources(row), part.clip_frames(row).apex
        for number, source in sources:
            if number in (sources[0][0], apex):
                try:
                    read_frame(source)
                except InputError as error:
                    return str(error)
        return ""

    with ThreadPoolExecutor(part.workers) as pool:
        for row, what in zip(clips, pool.map(open_two, clips), strict=True):
            if what:
                yield Problem(row.dataset, row.subject, row.clip, what, "left out", False)


def _counts(clips: pd.DataFrame) -> dict:
    return {"clips": len(clips), "subjects": clips.groupby(["dataset", "subject"]).ngroups}


def _protocol(data: FlowDataModule, clips: pd.DataFrame, name: str) -> dict:
    clips = _labelled(data, clips, name)
    classes = {label: int((clips["target"] == label).sum()) for label in protocol(name).classes}
    return {**_counts(clips), "classes": classes}


def _labelled(data: FlowDataModule, clips: pd.DataFrame, name: str) -> pd.DataFrame:
    """The clips that take part in a protocol, none perhaps."""
    try:
        return data.label(clips, name)
    except InputError:
        return clips.iloc[:0].assign(target="")


def _published(data: FlowDataModule, name: str) -> dict | None:
    """Counts of the real sheets; None for data that are no such database."""
    rules = protocol(name)
    if not set(data.parts) <= set(rules.parts):
        return None
    clips, subjects, classes = zip(*(rules.parts[part] for part in data.parts), strict=True)
    return {
        "clips": sum(clips),
        "subjects": sum(subjects),
        "classes": dict(zip(rules.classes, map(sum, zip(*classes, strict=True)), strict=True)),
    }


def _frames(clips: pd.DataFrame) -> dict:
    if clips.empty or "onset" not in clips:
        return {}
    lengths = clips["offset"] - clips["onset"] + 1
    rates = sorted(int(rate) for rate in clips["frames_per_second"].unique() if rate)
    return {
        "rate": rates[0] if len(rates) == 1 else rates,
        "length": {"min": int(lengths.min()), "median": float(lengths.median()), "max": int(lengths.max())},
    }


def _depth(data: FlowDataModule) -> dict:
    if not isinstance(data, VideoDataModule) or "depth" not in data.available_inputs:
        return {}
    return {"depth": sum(all(data.depth_files(row)) for row in rows(data.all_clips))}


def _classes(counts: Mapping) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts["classes"].items())


def _brief(counts: Mapping) -> str:
    return f"{counts['clips']} of {counts['subjects']}: {'/'.join(map(str, counts['classes'].values()))}"

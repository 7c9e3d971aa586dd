"""A page with pictures of every clip: onset, apex, flow and strain, to be looked through."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.base import FlowDataModule
from data_modules.cache.store import whole_file, write_text
from data_modules.processes.progress import clip_progress
from data_modules.release.clip_table import rows
from data_modules.videos import VideoDataModule
from experiments.report.drawing import data_address, draw_flow, draw_strain, draw_wheel, encode, full_colour, peak
from mer import InputError

STYLE = """
body { font: 13px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }
header { display: flex; gap: 1.5rem; align-items: center; max-width: 75rem; margin-bottom: 1rem }
header img { width: 96px } h1 { font-size: 1.3rem; margin: 0 0 .3rem } h2 { font-size: 1rem; margin: 1.6rem 0 .5rem }
nav a { margin-right: 1rem } p { margin: .2rem 0 }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: .9rem 1.2rem }
figure { margin: 0 } figure img { width: 100%; display: block } figcaption { padding-top: .15rem; color: #555 }
figcaption b { color: #111 }
"""


def write(data: FlowDataModule, folder: Path) -> Path:
    """Write ``index.html`` and one picture per clip of the protocol; the cache has to be filled.

    Args:
        data: Videos, or a composite of them.
        folder: Where the page goes; what is there of the same name is replaced.

    Returns:
        The page.

    Raises:
        InputError: If the dataset has no videos.
    """
    parts: list[VideoDataModule] = [part for part in data.parts.values() if isinstance(part, VideoDataModule)]
    if not parts:
        raise InputError(f"dataset '{data.name}' has no videos of which a gallery could be made")
    flows = [part.read(row)["flow"].numpy() for part in parts for row in rows(part.clips)]
    full = full_colour([peak(np.hypot(flow[0], flow[1])) for flow in flows])
    strongest = full_colour([peak(flow[2]) for flow in flows])
    sections: dict[str, list[str]] = {name: [] for name in data.classes}
    with clip_progress("gallery") as count:
        clips = ((part, row) for part in parts for row in rows(part.clips))
        for done, (part, row) in enumerate(clips, start=1):
            name = f"{row.dataset}-{row.subject}-{row.clip}.jpg"
            cached = {name: tensor.numpy() for name, tensor in part.read(row).items()}
            flow, apex = cached["flow"], int(cached["apex_frame"][0])
            faces = [cached[name].transpose(1, 2, 0) for name in ("onset", "apex")]
            pictures = [*faces, draw_flow(flow, full), draw_strain(flow[2], strongest)]
            strip = np.hstack([np.pad(p, ((0, 0), (1, 1), (0, 0)), constant_values=255) for p in pictures])
            with whole_file(folder / name) as temporary:
                temporary.write_bytes(encode(strip, ".jpg", quality=88))
            sections[row.target].append(_figure(row, name, apex, part.apex == "spotted", flow))
            count(done, len(flows))
    write_text(folder / "index.html", "\n".join(_page(data, sections, full, strongest)))
    return folder / "index.html"


def _figure(row, name: str, apex: int, spotted: bool, flow: NDArray[np.floating]) -> str:
    how = " (spotted)" if spotted or pd.isna(row.apex) else "" if row.apex == apex else f" (for {row.apex})"
    length = peak(np.hypot(flow[0], flow[1]))
    return (
        f'<figure><img loading="lazy" src="{escape(name)}" alt=""><figcaption><b>{escape(row.subject)} '
        f"{escape(row.clip)}</b> {escape(row.emotion)}"
        + (f", AU {escape(row.action_units)}" if row.action_units else "")
        + f"; frames {row.onset}, {apex}{how}, {row.offset}; {length:.1f} px</figcaption></figure>"
    )


def _page(data: FlowDataModule, sections: dict[str, list[str]], full: float, strongest: float) -> Iterator[str]:
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{data.name}, {data.protocol}</title>'
    yield f"<style>{STYLE}</style><header><img alt='' src='{data_address(draw_wheel(), '.png')}'><div>"
    yield f"<h1>{data.name}, {data.protocol}: {sum(map(len, sections.values()))} clips</h1>"
    yield (
        "<p>Each strip: onset, apex, flow between them, strain. Flow: the colour is the direction in which the face "
        f"moves, as on the wheel; white is still, full colour {full:g} px or more of the crop. Strain: black is none, "
        f"white {strongest:g} or more. Under it: onset, apex and offset frame, and the flow's 99th percentile.</p>"
    )
    links = (f'<a href="#{name}">{name} {len(figures)}</a>' for name, figures in sections.items())
    yield f"<nav>{''.join(links)}</nav>"
    yield "</div></header>"
    for name, figures in sections.items():
        yield f'<h2 id="{name}">{name}, {len(figures)} clip{"" if len(figures) == 1 else "s"}</h2><div class="clips">'
        yield from figures
        yield "</div>"

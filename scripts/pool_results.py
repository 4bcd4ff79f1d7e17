"""Pool demo runs for the README. In: folders of `wbvla demo`. Out: docs/results/*.json, docs/images/demo.png, a table.

.venv/bin/python scripts/pool_results.py outputs/demo outputs/demo_1 outputs/demo_2
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

from wbvla.evaluation.run import CONFIDENCE
from wbvla.evaluation.statistics import separated, wilson

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = 6


def storyboard(film: Path, to: Path) -> None:
    """Put evenly spaced pictures of a film side by side."""
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, PICTURES)]
    rows = [np.concatenate(chosen[i : i + 3], axis=1) for i in range(0, PICTURES, 3)]
    to.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).quantize(128).save(to, optimize=True)


def main(folders: list[str]) -> None:
    """Write the files and print the pooled table as Markdown."""
    runs = [json.loads((Path(folder) / "results.json").read_text()) for folder in folders]
    for run in runs:
        (DOCS / "results").mkdir(exist_ok=True)
        (DOCS / "results" / f"demo_seed{run['seed']}.json").write_text(json.dumps(run, indent=1) + "\n")
    storyboard(Path(folders[0]) / "evaluation" / "vla.mp4", DOCS / "images" / "demo.png")
    names = [row["policy"] for row in runs[0]["rows"]]
    pooled = {}
    print(f"| policy | success | {CONFIDENCE:.0%} interval | " + " | ".join(f"seed {r['seed']}" for r in runs) + " |")
    print("|---|---|---|" + "---|" * len(runs))
    for name in names:
        rows = [next(row for row in run["rows"] if row["policy"] == name) for run in runs]
        n, k = sum(row["trials"] for row in rows), sum(row["successes"] for row in rows)
        rate = pooled[name] = wilson(k, n, CONFIDENCE)
        each = " | ".join(f"{row['successes']}/{row['trials']}" for row in rows)
        print(f"| `{name}` | {k}/{n} = {rate.rate:.0%} | {rate.low:.0%} to {rate.high:.0%} | {each} |")
    for name in names:
        if name not in ("vla", "operator"):
            apart = "apart from" if separated(pooled["vla"], pooled[name]) else "not apart from"
            print(f"vla is {apart} {name}")
    same, repeated = (sum(run["realtime"][key] for run in runs) for key in ("same_outcome", "trials"))
    print(f"{same} of {repeated} trials repeated in real time ended the same")
    print("minutes: " + ", ".join(f"{run['seconds'] / 60:.1f}" for run in runs))


main(sys.argv[1:])

"""`wbvla xvla convert`: a dataset's joint actions as palm poses, and back. In: a LeRobot v3 dataset. Out: another one.

To `ee6d`, action and state become 20-D poses (wbvla.xvla.poses says of what); whatever else they held is kept beside
them, as `action.rest` and `observation.body`. To `joints`, the arms' joints are found again near the measured ones, and
the rest returns to its place. Pictures and sentences are copied.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from wbvla.robots.base import Robot

REST, BODY, MEASURED = "action.rest", "observation.body", ".q_rad"


@dataclass(frozen=True)
class Convert:
    """Turn a dataset's joint actions into end-effector poses, or poses into joint actions.

    Attributes:
        dataset: folder of a LeRobot v3 dataset whose actions and states name the robot's arm joints.
        out: folder to write, new or empty.
        to: "ee6d" or "joints".
        robot: whose arms they are; what the dataset's robot type says when left out.
    """

    dataset: str
    out: str
    to: Literal["ee6d", "joints"] = "ee6d"
    robot: str | None = None


def run(cfg: Convert) -> None:
    """Convert. Raises ValueError, FileNotFoundError: data or folder that do not fit; one line with the fix."""
    from wbvla.data.frames import read_info
    from wbvla.robots import get_robot

    info, out = read_info(cfg.dataset), Path(cfg.out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out: {out} holds something, expected a new or empty folder")
    robot = get_robot(cfg.robot or info.get("robot_type") or "")
    columns = _to_poses if cfg.to == "ee6d" else _to_joints
    added, removed, facts = columns(cfg.dataset, info["features"], robot)
    _write(cfg.dataset, out, added, removed)
    _store_domain(Path(cfg.dataset), out, facts, cfg.to)
    print(f"wrote {out}: {info['total_episodes']} episodes, actions as {cfg.to}")


Columns = dict[str, tuple["np.ndarray", dict[str, Any]]]


def _to_poses(root: str, features: dict, robot: Robot) -> tuple[Columns, list[str], dict[str, Any]]:
    """Return the columns of an `ee6d` dataset, those it lacks, and its domain."""
    import numpy as np

    from wbvla.xvla.config import robot_facts
    from wbvla.xvla.poses import PalmPoses

    if REST in features:
        raise ValueError(f"{root}: holds poses already; `--to joints` turns them back")
    action_names, state_names = _names(root, features, "action"), _names(root, features, "observation.state")
    commanded = _entries(root, "action", action_names, list(robot.arm_joints))
    measured = _entries(root, "observation.state", state_names, [j + MEASURED for j in robot.arm_joints])
    grippers = [action_names.index(n) for n in ("gripper_left", "gripper_right") if n in action_names]
    action, state = _read(root, "action"), _read(root, "observation.state")
    poses = PalmPoses(robot)
    held = action[:, grippers] if len(grippers) == 2 else np.zeros((len(action), 2))
    rest = [i for i in range(action.shape[1]) if i not in (*commanded, *grippers)]
    added = {
        "action": (poses.forward(action[:, commanded], held), _feature(pose_names())),
        # no gripper is measured: as upstream, the state's are 0
        "observation.state": (poses.forward(state[:, measured], 0 * held), _feature(pose_names())),
        BODY: (state, _feature(state_names)),
    }
    if rest:
        added[REST] = (action[:, rest], _feature([action_names[i] for i in rest]))
    facts = {**robot_facts(f"{robot.name}_ee6d", ()), "action": "ee6d"}
    return added, ["action", "observation.state"], facts


def _to_joints(root: str, features: dict, robot: Robot) -> tuple[Columns, list[str], dict[str, Any]]:
    """Return the columns of a joint dataset, those it lacks, and its domain."""
    import numpy as np

    from wbvla.data.progress import Progress
    from wbvla.types import action_names
    from wbvla.xvla.config import robot_facts
    from wbvla.xvla.poses import PalmPoses

    if BODY not in features or features["action"]["shape"][0] != len(pose_names()):
        raise ValueError(f"{root}: got no {BODY} beside 20-D poses, expected a dataset of `wbvla xvla convert`")
    state_names = _names(root, features, BODY)
    measured = _entries(root, BODY, state_names, [j + MEASURED for j in robot.arm_joints])
    state, action = _read(root, BODY), _read(root, "action")
    progress = Progress("inverse kinematics", len(action), "rows")
    arms, held = PalmPoses(robot).inverse(action, state[:, measured], progress.advance)
    progress.close()
    names = [*robot.arm_joints, "gripper_left", "gripper_right"]
    parts, removed = [arms, held], ["action", "observation.state", BODY]
    if REST in features:
        names += _names(root, features, REST)
        parts.append(_read(root, REST))
        removed.append(REST)
    added = {
        "action": (np.concatenate(parts, axis=1).astype(np.float32), _feature(names)),
        "observation.state": (state, _feature(state_names)),
    }
    facts = robot_facts(robot.name, robot.masked_actions)
    if names != action_names(robot.arm_joints):
        facts |= {"action": "auto", "masked_actions": []}
    return added, removed, facts


def pose_names() -> list[str]:
    """Names of the 20 entries of `ee6d`."""
    place = [*(f"{a}_m" for a in "xyz"), *(f"r{i}{j}" for j in (1, 2) for i in (1, 2, 3)), "gripper"]
    return [f"{side}_{entry}" for side in ("left", "right") for entry in place]


def _feature(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": names}


def _names(root: str, features: dict, key: str) -> list[str]:
    """Return a feature's entry names. Raises ValueError if it has none."""
    names = features.get(key, {}).get("names")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{root}: {key}: got names {names!r}, expected a list with one name an entry")
    return names


def _entries(root: str, key: str, names: list[str], wanted: list[str]) -> list[int]:
    """Return where the robot's joints are in a vector. Raises ValueError naming the first that is not there."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(
            f"{root}: {key}: got {len(names)} entries without {missing[0]!r} ({names[0]!r}, ...), expected all "
            f"{len(wanted)} arm joints by name; choose another --robot, or rename the entries in meta/info.json"
        )
    return [names.index(name) for name in wanted]


def _read(root: str, key: str) -> np.ndarray:
    """Return a column (N, n) float32 in the order of the dataset's files."""
    import numpy as np

    from wbvla.data.frames import read_tables

    return np.stack(read_tables(root, "data", [key])[key].to_numpy()).astype(np.float32)


def _write(root: str, out: Path, added: Columns, removed: list[str]) -> None:
    """Write the dataset with other columns, through LeRobot's own tools; videos are copied as they are."""
    from datasets import disable_progress_bars
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.dataset_tools import modify_features, recompute_stats

    disable_progress_bars()
    name = f"local/{out.name}"
    between = out.with_name(f".{out.name}.part")  # LeRobot cannot replace a column: take out, then put in
    shutil.rmtree(between, ignore_errors=True)
    if out.exists():
        out.rmdir()  # LeRobot wants to make it
    try:
        source = LeRobotDataset(f"local/{Path(root).name}", root=root, video_backend="pyav")
        bare = modify_features(source, remove_features=removed, output_dir=between, repo_id=name)
        recompute_stats(modify_features(bare, add_features=added, output_dir=out, repo_id=name))
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(between, ignore_errors=True)


def _store_domain(root: Path, out: Path, facts: dict[str, Any], to: str) -> None:
    """Carry the recording's own facts over, with the new domain."""
    from wbvla.contract import save_contract
    from wbvla.data.frames import FACTS, read_facts

    save_contract(out / FACTS, {**read_facts(root), "domain": facts, "converted": to})

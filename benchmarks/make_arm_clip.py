"""Make src/wbvla/lmo/bench/arm_clip_ROBOT.npz: 60 s of two-handed work, at human speed, by inverse kinematics.

python benchmarks/make_arm_clip.py
The palms visit the places below in the pelvis frame on minimum jerk paths; `wbvla lmo bench --protocol stability`
replays the result.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.bench.arms import committed
from wbvla.robots import get_robot
from wbvla.sim.ik import ArmSolver

FPS = 20
# Seconds of the move, then left and right palm: ahead, aside, above the pelvis, m.
WORK = (
    (2.0, (0.28, 0.22, 0.05), (0.28, -0.22, 0.05)),  # ready
    (1.2, (0.34, 0.20, 0.01), (0.34, -0.20, 0.01)),  # reach down for a box
    (0.8, (0.34, 0.13, 0.01), (0.34, -0.13, 0.01)),  # squeeze
    (1.4, (0.32, 0.13, 0.16), (0.32, -0.13, 0.16)),  # lift
    (2.0, (0.30, 0.13, 0.14), (0.30, -0.13, 0.14)),  # carry
    (1.4, (0.40, 0.13, 0.26), (0.40, -0.13, 0.26)),  # put on a shelf
    (0.8, (0.40, 0.20, 0.26), (0.40, -0.20, 0.26)),  # let go
    (1.6, (0.25, 0.24, 0.08), (0.25, -0.24, 0.08)),  # back
    (1.4, (0.38, 0.20, 0.12), (0.25, -0.24, 0.05)),  # left hand reaches
    (1.0, (0.38, 0.08, 0.10), (0.25, -0.24, 0.05)),
    (1.2, (0.28, 0.18, 0.20), (0.30, -0.10, 0.18)),  # hand to hand
    (1.0, (0.25, 0.24, 0.08), (0.36, -0.26, 0.20)),  # right hand sets it down
    (1.2, (0.25, 0.24, 0.06), (0.36, -0.14, 0.03)),
    (1.0, (0.28, 0.22, 0.06), (0.28, -0.22, 0.06)),
    (1.4, (0.34, 0.20, 0.18), (0.34, -0.20, 0.18)),  # up to a handle
    (2.0, (0.40, 0.18, 0.16), (0.40, -0.18, 0.16)),  # push it
    (1.6, (0.26, 0.20, 0.14), (0.26, -0.20, 0.14)),  # pull it
    (1.2, (0.38, 0.26, 0.10), (0.38, -0.10, 0.22)),  # turn it
    (1.2, (0.38, 0.10, 0.22), (0.38, -0.26, 0.10)),
    (1.2, (0.30, 0.22, 0.08), (0.30, -0.22, 0.08)),
    (1.0, (0.33, 0.24, 0.24), (0.33, -0.24, 0.02)),  # wipe, one up and one down
    (1.0, (0.33, 0.24, 0.02), (0.33, -0.24, 0.24)),
    (1.0, (0.33, 0.24, 0.24), (0.33, -0.24, 0.02)),
    (1.0, (0.33, 0.24, 0.02), (0.33, -0.24, 0.24)),
)
SECONDS, CHEST = 60.0, np.array([0.1, 0.0, 0.15])
ROBOTS = ("g1", "x2")


def main() -> None:
    """Make the clip of every robot."""
    for name in ROBOTS:
        make(name)


def reach(solver: ArmSolver, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the arms' pose (14,) at a place, or as near to the chest on the way there as these arms need."""
    for share in np.arange(1.0, 0.6, -0.02):
        try:
            return solver.solve(*(CHEST + share * (palm - CHEST) for palm in (left, right)))
        except ValueError:
            continue
    raise SystemExit(f"{solver.robot.name}: {left} and {right} are out of reach")


def make(name: str) -> None:
    """Solve the places, join them, repeat until the minute is full, and write the file."""
    robot, parts = get_robot(name), []
    solver, path = ArmSolver(robot), committed(name)
    poses = [reach(solver, np.array(left), np.array(right)) for _, left, right in WORK]
    here = robot.array("default")[robot.n_lmo : robot.n_lmo + 14]
    while sum(map(len, parts)) < SECONDS * FPS:
        for (seconds, _, _), there in zip(WORK, poses):
            s = np.arange(1, round(seconds * FPS) + 1)[:, None] / round(seconds * FPS)
            parts.append(here + (there - here) * (10 * s**3 - 15 * s**4 + 6 * s**5))
            here = there
    motion = np.concatenate(parts)[: int(SECONDS * FPS)].astype(np.float32)
    speed = np.sqrt((np.diff(motion, axis=0) ** 2).mean()) * FPS
    np.savez_compressed(path, arms_rad=motion, fps=np.float32(FPS))
    print(f"{path}: {motion.shape}, RMS speed {speed:.2f} rad/s, spread {motion.std(0).mean():.2f} rad")


if __name__ == "__main__":
    main()

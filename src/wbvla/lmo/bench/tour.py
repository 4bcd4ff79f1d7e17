"""Protocol `tour`: twelve waypoints in sixty seconds, arms moving, pushes that grow to 600 N.

Layout, tolerances and score are this project's own; the guide speaks flags at cruise speed, as a VLA does.
"""

from __future__ import annotations

import numpy as np

from wbvla.lmo.bench.cell import Cell, Row
from wbvla.lmo.bench.draw import CRUISE, Plan, Push, Setting, constant, plan, random_arms, steps_of
from wbvla.lmo.bench.metrics import in_frame

SECONDS, WORLDS = 60.0, 64
LOW_BELOW_M = 0.08  # under the robot's nominal height
# x m, y m, heading in quarter turns, low; in the frame of the start.
WAYPOINTS = (
    (1.0, 0.0, 0, False), (2.0, 0.0, 0, False), (2.0, 0.0, 1, False), (2.0, 0.8, 1, False), (2.5, 0.8, 1, False),
    (2.5, 0.8, 2, False), (1.5, 0.8, 2, True), (0.7, 0.8, 2, True), (0.7, 0.3, 2, False), (1.3, 0.3, 2, False),
    (1.3, 0.3, 3, False), (1.3, -0.5, 3, False),
)  # fmt: skip
ARRIVED_M, ARRIVED_RAD, ARRIVED_S = 0.20, 0.15, 0.4
ON, OFF = np.array([0.10, 0.10, 0.10]), np.array([0.04, 0.04, 0.04])  # flags rise and fall at these errors
TURN_FIRST_RAD = 0.35
PUSHES = tuple((8.0 * k, 100.0 * k) for k in range(1, 7))  # at 8, 16, ... 48 s: 100, 200, ... 600 N
PUSH_S = 0.1


class TourGuide:
    """Commands n robots from waypoint to waypoint by ternary flags with hysteresis."""

    def __init__(self, setting: Setting, n: int) -> None:
        self.goals = np.array([(x, y, q * np.pi / 2) for x, y, q, _ in WAYPOINTS])
        nominal, low_m = setting.nominal_m, setting.robot.nominal_height_m - LOW_BELOW_M
        self.heights = np.array([min(low_m, nominal) if low else nominal for *_, low in WAYPOINTS])
        self.reached, self.held, self.flags = np.zeros(n, int), np.zeros(n, int), np.zeros((n, 3))
        self.origin: np.ndarray | None = None
        self.finished_s, self.t = np.full(n, np.nan), 0

    def step(self, pose: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Return the command (n, 4) for poses (n, 3) in the world; a fallen robot arrives nowhere."""
        if self.origin is None:
            self.origin = pose.copy()
        here = in_frame(pose, self.origin)
        last = len(self.goals) - 1
        goal = self.goals[np.minimum(self.reached, last)]
        error = in_frame(goal, here)
        near = alive & (np.linalg.norm(error[:, :2], axis=1) < ARRIVED_M) & (np.abs(error[:, 2]) < ARRIVED_RAD)
        self.held = np.where(near, self.held + 1, 0)
        arrived = (self.held >= steps_of(ARRIVED_S)) & (self.reached <= last)
        self.reached += arrived
        self.held[arrived] = 0
        self.t += 1
        self.finished_s[arrived & (self.reached > last)] = self.t * 0.02
        sign = np.sign(error)
        go_on = (self.flags == sign) & (np.abs(error) > OFF)
        self.flags = np.where(go_on | (np.abs(error) > ON), sign, 0.0)
        self.flags[np.abs(error[:, 2]) > TURN_FIRST_RAD, :2] = 0.0
        height = self.heights[np.minimum(self.reached, last)]
        return np.column_stack([self.flags * CRUISE, height])

    def figures(self) -> dict[str, np.ndarray]:
        """Return the share of waypoints reached, and the time of the last one where all were."""
        return {"tour_completion": self.reached / len(self.goals), "finished_s": self.finished_s}


def cells() -> list[Cell]:
    """Return the row."""
    return [Cell("tour", WORLDS, SECONDS, _draw, guide=TourGuide)]


def figures(rows: list[Row]) -> dict[str, float | None]:
    """Return the headline figures."""
    row = rows[0]
    return {
        "tour_completion": row.mean("tour_completion"),
        "survival_tour": row.mean("survival"),
        "tour_finished_s": row.mean("finished_s"),
    }


def _draw(rng: np.random.Generator, s: Setting) -> Plan:
    steps = steps_of(SECONDS)
    out = plan(rng, s, constant(SECONDS, 0, 0, 0, s.nominal_m), random_arms(rng, s, steps))
    for time_s, force_n in PUSHES:
        angle = rng.uniform(-np.pi, np.pi)
        out.pushes.append(Push(time_s, PUSH_S, force_n * np.cos(angle), force_n * np.sin(angle)))
    return out

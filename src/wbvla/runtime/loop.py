"""The fast loop: 50 decisions a second, whatever the policy server does.

In: a robot adapter (sensors, camera, motors), the legs' controller, a link to the policy server.
Out: joint targets every 20 ms, and a `LoopReport` of decisions and timing.
The ladder of decisions: the newest chunk by age, else hold its end, else stand, and with stale or broken sensors a
damped stop that lasts. The loop never waits for anybody, and paces itself by absolute deadlines.
"""

from __future__ import annotations

import gc
import math
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from wbvla.robots.base import Robot
from wbvla.runtime.chunk import MODES, ChunkPlayer
from wbvla.runtime.clock import SimulatedClock, WallClock
from wbvla.runtime.limits import Limiter
from wbvla.runtime.wire import Answer, Request
from wbvla.types import ARM, FLAGS, GRIPPER, HEIGHT, LocoCommand, Proprioception, WholeBodyAction

PERIOD_S = 0.02
SENSOR_LIMIT_S = 0.1  # older sensors than this are no ground to stand on
WATCHDOG_TURN_S, WATCHDOG_TURNS = 0.05, 10  # a loop silent for ten of these turns is taken off the motors
LADDER = (*MODES, "damped")


class RobotAdapter(Protocol):
    """What the loop needs of a robot. Times are in the loop's clock."""

    def read(self) -> tuple[Proprioception, float]:
        """Return the newest sensor values and when they were measured; never waits."""

    def camera(self) -> tuple[np.ndarray, float] | None:
        """Return the newest frame (H, W, 3) uint8 not returned before and its capture time, or None; never waits."""

    def send(self, targets_rad: np.ndarray, kp: np.ndarray, kd: np.ndarray) -> None:
        """Command joint targets (J,) with PD gains (J,); the watchdog may call it from another thread."""

    def close(self) -> None:
        """Release the robot."""


class Link(Protocol):
    """The loop's view of a policy client; see client.PolicyClient."""

    def offer(self, request: Request) -> None:
        """Take a request; never waits."""

    def poll(self) -> Answer | None:
        """Return the newest unread answer or None; never waits."""


class Controller(Protocol):
    """The legs' policy; see lmo.controller.LmoController."""

    def step(self, command: LocoCommand, body: Proprioception) -> np.ndarray:
        """Return leg and waist targets in rad."""


@dataclass(frozen=True)
class LoopReport:
    """What the loop did: shares of each decision, timing in ms, chunks taken and refused.

    `flag_differences` counts ticks in which the legs got other flags than the chunk held; a law says 0.
    """

    ticks: int
    mode_shares: dict[str, float]
    lateness_ms_p50: float
    lateness_ms_p99: float
    lateness_ms_max: float
    work_ms_p50: float
    work_ms_p99: float
    work_ms_max: float
    missed_deadlines: int
    chunks_taken: int
    chunks_refused: int
    flag_differences: int
    stopped_because: str | None

    def to_dict(self) -> dict:
        """Return the report as JSON types."""
        return asdict(self)


class LoopLog:
    """One preallocated row a tick: time, lateness, work, decision and the applied action (20,)."""

    def __init__(self, rows: int) -> None:
        self.n = 0
        self.t_s, self.late_s, self.work_s = np.zeros((3, rows))
        self.mode = np.zeros(rows, np.int8)
        self.action = np.zeros((rows, 20), np.float32)

    def modes(self) -> list[str]:
        """Return the decision of every tick so far."""
        return [LADDER[m] for m in self.mode[: self.n]]


class FastLoop:
    """Runs a robot at 50 Hz.

    Args:
        robot: joint order, gains and limits.
        adapter: the robot's sensors, camera and motors.
        controller: the legs' policy, stepped once a tick.
        link: a PolicyClient, or None to stand.
        task: the sentence sent with every observation.
        clock: WallClock (default) or SimulatedClock.
        startup_s: over this time the leg targets move from the measured pose to the controller's.
    """

    def __init__(
        self,
        robot: Robot,
        adapter: RobotAdapter,
        controller: Controller,
        link: Link | None,
        task: str,
        clock: WallClock | SimulatedClock | None = None,
        startup_s: float = 0.0,
    ) -> None:
        self.robot, self.adapter, self.controller, self.link, self.task = robot, adapter, controller, link, task
        self.clock = clock or WallClock()
        self.limiter = Limiter(robot, PERIOD_S)
        self.stopped_because: str | None = None
        self.chunks = Counter(taken=0, refused=0)
        self.flag_differences = 0
        self.log = LoopLog(0)
        self._kp, self._kd = robot.array("kp"), robot.array("kd")
        self._zero = np.zeros_like(self._kp)
        self._beats = 0
        body, _ = adapter.read()
        self.limiter.start(body.q_rad, startup_s)
        arms_rad = self.limiter.targets_rad[robot.n_lmo : robot.n_lmo + 14]
        self.player = ChunkPlayer(arms_rad, robot.nominal_height_m)
        self._last = LocoCommand(height_m=robot.nominal_height_m)

    def run(self, seconds: float, stop: threading.Event | None = None) -> LoopReport:
        """Tick for `seconds` or until `stop` is set. An exception damps the robot before it travels on."""
        rows = math.ceil(seconds / PERIOD_S - 1e-9)
        self.log = LoopLog(rows)
        missed, tick = 0, 0
        with _undisturbed(), self._watchdog():
            try:
                start_s = self.clock.now()
                while tick < rows and not (stop is not None and stop.is_set()):
                    deadline_s = start_s + tick * PERIOD_S
                    self.clock.wait_until(deadline_s)
                    self._logged_tick(deadline_s)
                    late_s = self.clock.now() - deadline_s - PERIOD_S
                    missed += late_s > 0
                    # A late tick is followed at once by the next; whole lost periods are skipped, not caught up.
                    tick += 1 + max(0, math.floor(late_s / PERIOD_S))
            except BaseException:
                self._damp()
                raise
        return self._report(missed)

    def tick(self) -> str:
        """Read, decide and command once; return the decision, one of LADDER."""
        now_s = self.clock.now()
        body, t_sensor_s = self.adapter.read()
        if self.stopped_because is None:
            self._check_sensors(body, now_s - t_sensor_s)
        if self.stopped_because is not None:
            self._damp()
            return "damped"
        self._slow_side(body)
        action, mode = self.player.at(now_s)
        command = self.limiter.loco(action.loco)
        self.flag_differences += not np.array_equal(command.flags, action.loco.flags)
        legs_rad = self.controller.step(command, body)
        if not np.isfinite(legs_rad).all():
            self.stopped_because = "the legs' policy gave non-finite targets"
            self._damp()
            return "damped"
        targets_rad = self.limiter.joints(legs_rad, self.robot.upper_rad(action.arms))
        self.adapter.send(targets_rad, self._kp, self._kd)
        self._last = command
        self._note(action, command)
        return mode

    def _logged_tick(self, deadline_s: float) -> None:
        log = self.log
        now_s = self.clock.now()
        log.t_s[log.n], log.late_s[log.n] = now_s, now_s - deadline_s
        log.mode[log.n] = LADDER.index(self.tick())
        log.work_s[log.n] = self.clock.now() - now_s
        log.n += 1
        self._beats += 1

    def _note(self, action: WholeBodyAction, command: LocoCommand) -> None:
        """Write down what was applied: limited arms, the command as the legs got it."""
        log, robot = self.log, self.robot
        if log.n < len(log.action):
            row = log.action[log.n]
            arms = robot.arm_target(self.limiter.targets_rad[robot.n_lmo :])
            row[ARM], row[GRIPPER] = arms.positions_rad, arms.grippers
            row[FLAGS] = command.s_x, command.s_y, command.s_psi
            row[HEIGHT] = command.height_m

    def _check_sensors(self, body: Proprioception, age_s: float) -> None:
        fields = (body.q_rad, body.dq_rad_s, body.gyro_rad_s, body.gravity)
        if age_s > SENSOR_LIMIT_S:
            self.stopped_because = f"sensors are {1e3 * age_s:.0f} ms old"
        elif not all(np.isfinite(field).all() for field in fields):
            self.stopped_because = "sensors gave non-finite numbers"

    def _slow_side(self, body: Proprioception) -> None:
        """Exchange mail with the server: the newest frame out, the newest chunk in."""
        if self.link is None:
            return
        answer = self.link.poll()
        if answer is not None:
            try:
                self.chunks[
                    "taken" if self.player.put(answer.chunk, answer.t_capture_s, answer.fps) else "refused"
                ] += 1
            except ValueError:
                self.chunks["refused"] += 1
        frame = self.adapter.camera()
        if frame is not None:
            image, t_capture_s = frame
            self.link.offer(Request(image, body.to_state(self._last), self.task, t_capture_s))

    def _damp(self) -> None:
        """Let the joints sink: no stiffness, damping only."""
        self.adapter.send(self.limiter.targets_rad, self._zero, self._kd)

    @contextmanager
    def _watchdog(self):
        """Damp the robot from a second thread if the loop hangs.

        Counted in the watchdog's own turns, not in time: when the machine starves or suspends the whole process both
        threads lose their turns, and damping a robot that still stands would be what fells it.
        """
        over = threading.Event()

        def watch() -> None:
            silent_turns, seen = 0, self._beats
            while not over.wait(WATCHDOG_TURN_S):
                silent_turns, seen = (silent_turns + 1 if seen == self._beats else 0), self._beats
                if silent_turns >= WATCHDOG_TURNS:
                    self.stopped_because = self.stopped_because or f"the loop hung at tick {seen}"
                    self._damp()

        thread = threading.Thread(target=watch, name="watchdog", daemon=True)
        if self.clock.realtime:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if self.clock.realtime:
                thread.join()

    def _report(self, missed: int) -> LoopReport:
        log = self.log
        late_ms, work_ms = 1e3 * log.late_s[: log.n], 1e3 * log.work_s[: log.n]
        if log.n == 0:
            late_ms = work_ms = np.zeros(1)
        counts = Counter(log.modes())
        return LoopReport(
            ticks=log.n,
            mode_shares={mode: counts[mode] / max(1, log.n) for mode in LADDER},
            lateness_ms_p50=float(np.percentile(late_ms, 50)),
            lateness_ms_p99=float(np.percentile(late_ms, 99)),
            lateness_ms_max=float(late_ms.max()),
            work_ms_p50=float(np.percentile(work_ms, 50)),
            work_ms_p99=float(np.percentile(work_ms, 99)),
            work_ms_max=float(work_ms.max()),
            missed_deadlines=missed,
            chunks_taken=self.chunks["taken"],
            chunks_refused=self.chunks["refused"],
            flag_differences=self.flag_differences,
            stopped_because=self.stopped_because,
        )


@contextmanager
def _undisturbed():
    """Keep the garbage collector and long turns of other Python threads out of the loop."""
    switch_s, collecting = sys.getswitchinterval(), gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.unfreeze()
        if collecting:
            gc.enable()

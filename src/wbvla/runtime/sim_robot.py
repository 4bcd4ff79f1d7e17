"""The simulated humanoid behind the robot adapter protocol.

In: joint targets at 50 Hz. Out: proprioception, delayed head pictures, the task's verdict.
The world is a sim.env.TaskEnv that moves 20 ms with every command. Pictures are drawn in a second thread when time is
real (the fast loop then never waits for graphics), and on the spot when it is simulated.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from wbvla.runtime.clock import SimulatedClock, WallClock
from wbvla.types import LocoCommand, Proprioception, WholeBodyAction

if TYPE_CHECKING:
    from wbvla.sim.env import TaskEnv

CAMERA_TICKS = 5  # 10 pictures a second
VIDEO_TICKS = 5


class _Relay:
    """Stands in for the legs' controller inside the environment: settles with the real one, then obeys `send`."""

    def __init__(self, controller) -> None:
        self._controller = controller
        self.legs_rad: np.ndarray | None = None

    def reset(self) -> None:
        self._controller.reset()
        self.legs_rad = None

    def step(self, command: LocoCommand, body: Proprioception) -> np.ndarray:
        return self._controller.step(command, body) if self.legs_rad is None else self.legs_rad


class SimRobot:
    """One episode of a task, driven from outside tick by tick.

    Args:
        task, robot: names.
        controller: the legs' controller; it stands through the episode's first half second and is then the loop's.
        clock: the loop's clock; a real one gets its pictures from a thread.
        seed: of the episode.
        image_size: side of the picture in pixels; 0 draws nothing and gives empty pictures.
        watch: called with the environment after every tick.
        unseen: the task's axes of variation that are drawn from their unseen ranges.
        camera_ticks: 20 ms ticks from one picture to the next.
    Attributes:
        done: set when the task has succeeded, failed or run out of time.
    """

    def __init__(
        self,
        task: str,
        robot: str,
        controller,
        clock: WallClock | SimulatedClock,
        seed: int,
        image_size: int = 96,
        watch: Callable[[TaskEnv], None] | None = None,
        unseen: tuple[str, ...] = (),
        camera_ticks: int = CAMERA_TICKS,
    ) -> None:
        from wbvla.sim.env import TaskEnv

        self.controller, self._clock, self._image_size, self._watch = controller, clock, image_size, watch
        self._camera_ticks = camera_ticks
        self._relay = _Relay(controller)
        # Pictures are drawn here, not by the environment: a graphics context belongs to one thread.
        self.env = TaskEnv(task=task, robot=robot, image_size=0, controller=self._relay, unseen=unseen)
        self.robot, self.task_text = self.env.robot, self.env.task.text
        first = self.env.reset(seed)
        self._delay_ticks = round((self.env.t_s - first.t_capture_s) / 0.02)
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=self._delay_ticks + 1)
        self._orders: deque[tuple[float, np.ndarray]] = deque(maxlen=1)
        self._frames: deque[tuple[np.ndarray, float]] = deque(maxlen=1)
        self.video_qpos: list[np.ndarray] = []
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._gains = self.robot.array("kp"), self.robot.array("kd")
        self._ticks = 0
        self._ordered, self._closing = threading.Event(), False
        self._painter = None
        if clock.realtime:
            self._painter = threading.Thread(target=self._paint, name="head-camera", daemon=True)
            self._painter.start()
        self._look()

    def read(self) -> tuple[Proprioception, float]:
        """Return what the body measures now; the world stands still between two commands."""
        return self.env.plant.proprioception(), self._clock.now()

    def camera(self) -> tuple[np.ndarray, float] | None:
        """Return the newest unseen picture and its capture time, or None."""
        if self._painter is None and self._orders:
            self._draw(*self._orders.popleft())
        try:
            return self._frames.popleft()
        except IndexError:
            return None

    def send(self, targets_rad: np.ndarray, kp: np.ndarray, kd: np.ndarray) -> None:
        """Move the world 20 ms under joint targets (J,) and gains (J,)."""
        n = self.robot.n_lmo
        with self._lock:
            self._set_gains(kp, kd)
            self._relay.legs_rad = targets_rad[:n].copy()
            arms = self.robot.arm_target(targets_rad[n:])
            self.env.tick(WholeBodyAction(arms, LocoCommand(height_m=self.robot.nominal_height_m)))
            self._ticks += 1
            self._look()
        if self._watch is not None:
            self._watch(self.env)
        if self.env.info()["done"]:
            self.done.set()

    def pelvis(self) -> tuple[float, float]:
        """Return the pelvis height in m and its tilt from upright in rad."""
        position, _, tilt_rad = self.env.plant.pelvis_pose()
        return float(position[2]), tilt_rad

    def close(self) -> None:
        """Stop the camera and free its graphics memory; safe to call twice."""
        self._closing = True
        self._ordered.set()
        if self._painter is not None and self._painter.is_alive():
            self._painter.join()
        self.env.close()

    def _set_gains(self, kp: np.ndarray, kd: np.ndarray) -> None:
        if np.array_equal(kp, self._gains[0]) and np.array_equal(kd, self._gains[1]):
            return
        model = self.env.plant.model
        motors = [model.actuator(name).id for name in self.robot.joints]
        model.actuator_gainprm[motors, 0] = kp
        model.actuator_biasprm[motors, 1], model.actuator_biasprm[motors, 2] = -kp, -kd
        self._gains = kp.copy(), kd.copy()

    def _look(self) -> None:
        """Remember the pose; ten times a second order a picture of one camera delay ago."""
        qpos = self.env.plant.data.qpos.copy()
        # The pose in the world now was reached at the end of this tick's 20 ms.
        self._past.append((self._clock.now() + (0.02 if self._ticks else 0.0), qpos))
        if self._ticks % self._camera_ticks == 0:
            self._orders.append(self._past[0])
            self._ordered.set()
        if self._ticks % VIDEO_TICKS == 0:
            self.video_qpos.append(qpos)

    def _draw(self, t_capture_s: float, qpos: np.ndarray) -> None:
        size = self._image_size
        image = self.env.plant.render(size, qpos) if size else np.zeros((0, 0, 3), np.uint8)
        self._frames.append((image, t_capture_s))

    def _paint(self) -> None:
        while not self._closing:
            self._ordered.wait()
            self._ordered.clear()
            if self._orders and not self._closing:
                self._draw(*self._orders.popleft())
        self.env.close()  # in the thread that owns the graphics context

"""The environment: 20-D actions in, 20 a second or as many as asked for; delayed pictures, body state, verdicts out.

In: whole-body action vectors (20,). Out: Observation and info.
Time runs in 20 ms ticks; at 20 Hz an action lasts 2 or 3 of them in turn, 50 ms on average. A picture shows the world
as it was one camera delay ago (drawn per episode); `t_capture_s` is that instant's true time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from wbvla.robots import get_robot
from wbvla.sim.body import WholeBodySim
from wbvla.sim.plant import MAX_IMAGE_PX, TICK_S, Plant
from wbvla.sim.tasks import get_task
from wbvla.sim.tasks.base import check_axes
from wbvla.types import Observation, WholeBodyAction, check_action_rate, check_pictures

SETTLE_TICKS = 26  # 0.52 s of standing before the first observation
VIDEO_SIZE = (480, 360)


class TaskEnv:
    """One robot, one task, one episode at a time; the same seed gives the same episode bit for bit.

    Args:
        task, robot: names.
        image_size: side of the square pictures in pixels; 0 draws nothing and gives an empty head picture.
        controller: the legs' controller; None uses the one shipped for the robot.
        camera_delay_s: bounds of the picture's age, drawn uniformly per episode.
        control_delay_steps: ticks between the legs' decision and its effect.
        unseen: the task's axes of variation that are drawn from their unseen ranges.
        pictures: what else is taken with the head picture, see wbvla.types.PICTURES.
        action_hz: actions a second, 10 to 50.

    Raises:
        ValueError: an action rate out of these bounds, too large a picture, or an unknown name.
    """

    def __init__(
        self,
        task: str = "cart-pushing",
        robot: str = "g1",
        image_size: int = 96,
        controller=None,
        camera_delay_s: tuple[float, float] = (0.03, 0.07),
        control_delay_steps: int = 1,
        unseen: tuple[str, ...] = (),
        pictures: tuple[str, ...] = (),
        action_hz: float = 20.0,
    ) -> None:
        check_pictures(pictures)
        check_action_rate(action_hz)
        if not 0 <= image_size <= MAX_IMAGE_PX:
            raise ValueError(f"image_size: got {image_size}, expected at most {MAX_IMAGE_PX} pixels")
        if controller is None:
            from wbvla.lmo.controller import shipped_controller

            controller = shipped_controller(robot)
        self.task, self.robot, self.image_size = get_task(task), get_robot(robot), image_size
        check_axes(unseen, self.task.axes)
        self.plant = Plant(self.robot, self.task)
        self.body = WholeBodySim(self.plant, controller, control_delay_steps)
        self._camera_delay_s, self._unseen, self.pictures = camera_delay_s, unseen, pictures
        self.action_hz = action_hz

    def reset(self, seed: int, **fixed: float) -> Observation:
        """Start the episode of this seed, let the robot settle for half a second, and look.

        Args:
            fixed: values of axes of variation that are then not drawn.
        """
        rng = np.random.default_rng(seed)
        self.task.start(self.plant, rng, self._unseen, **fixed)
        self._delay_ticks = rng.uniform(*self._camera_delay_s) / TICK_S
        self.body.reset()
        self._rules = self.task.rules()
        self.ticks = 0
        self._steps = 0
        self._past = deque(maxlen=int(np.ceil(self._camera_delay_s[1] / TICK_S)) + 2)
        self._remember()
        for _ in range(SETTLE_TICKS):
            self.tick(self.body.last)
        return self.observe()

    @property
    def t_s(self) -> float:
        """Time since reset in seconds, the clock of `Observation.t_capture_s`."""
        return self.ticks * TICK_S

    @property
    def applied(self) -> np.ndarray:
        """The 20-D action that acted in the last tick, after limits."""
        return self.body.applied

    def tick(self, action: WholeBodyAction | np.ndarray) -> None:
        """Advance 20 ms under an action; for players that work at the legs' 50 Hz."""
        if not isinstance(action, WholeBodyAction):
            action = WholeBodyAction.from_vector(action)
        self.body.tick(action.arms, action.loco)
        self.ticks += 1
        self._remember()
        self._outcome = self._rules.judge(self.task.state(self.plant))

    def step(
        self, action: np.ndarray, watch: Callable[[TaskEnv], None] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Advance by one action (20,), at 20 Hz 2 and 3 ticks in turn. See `info` for the dictionary.

        Args:
            watch: called with this environment after every tick.
        """
        self._steps += 1
        now, before = (int(steps / (self.action_hz * TICK_S) + 1e-9) for steps in (self._steps, self._steps - 1))
        for _ in range(now - before):
            self.tick(action)
            if watch is not None:
                watch(self)
        return self.observe(), self.info()

    def observe(self) -> Observation:
        """Return the body's state of now with the picture of one camera delay ago."""
        captured = int(np.floor(self.ticks - self._delay_ticks + 0.5))
        qpos = dict(self._past)[captured]
        if self.image_size:
            image = self.plant.render(self.image_size, qpos)
        else:
            image = np.zeros((0, 0, 3), np.uint8)
        state = self.plant.proprioception().to_state(self.body.last.loco)
        others = {name: self.plant.picture(name, self.image_size, qpos) for name in self.pictures}
        return Observation(image, state, self.task.text, captured * TICK_S, others)

    def info(self) -> dict[str, Any]:
        """Return the verdict: success, fallen, done, failure ("", "fall", "drop", "timeout"), subgoals, t_s."""
        o = self._outcome
        return {
            "success": o.success,
            "fallen": o.fallen,
            "done": o.done,
            "failure": o.failure,
            "subgoals": dict(o.subgoals),
            "t_s": self.t_s,
        }

    def privileged(self):
        """Return the task's full state; only the operator and the rules may see it."""
        return self.task.state(self.plant)

    def render_video_frame(self) -> np.ndarray:
        """Return a third-person picture (360, 480, 3) uint8 with the head camera's view in its corner."""
        frame = self.plant.render_from("side", *VIDEO_SIZE)
        inset = self.plant.render(144)
        frame[6:154, -154:-6] = 255
        frame[8:152, -152:-8] = inset
        return frame

    def close(self) -> None:
        """Free the renderers."""
        self.plant.close()

    def _remember(self) -> None:
        self._past.append((self.ticks, self.plant.data.qpos.copy()))

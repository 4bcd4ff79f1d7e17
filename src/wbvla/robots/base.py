"""The description of a humanoid: bodies, joints, gains, limits, camera; and the MuJoCo model built from it.

In: a `Robot` (see g1.py for one). Out: `mujoco.MjSpec` with primitive shapes, position actuators and sensors.
Only `build` imports mujoco: limits, gains and joint order are usable on the robot's computer without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from wbvla.types import GRIPPER, N_ARM, ArmTarget

Vec = tuple[float, ...]


@dataclass(frozen=True)
class Body:
    """One rigid link: pose in its parent, mass (kg), inertial frame and moments (kg m^2), and its hinge joint.

    A link with the axis (0, 0, 0) has no hinge: it is welded to its parent (the root floats).
    """

    name: str
    parent: str
    pos: Vec
    quat_wxyz: Vec
    mass: float
    inertia_pos: Vec
    inertia_quat_wxyz: Vec
    inertia: Vec
    axis: Vec
    range_rad: Vec

    def mirrored(self) -> Body:
        """Reflect a left link in the x-z plane to get the right one."""
        w, x, y, z = self.quat_wxyz
        iw, ix, iy, iz = self.inertia_quat_wxyz
        lo, hi = self.range_rad
        pitch = self.axis[1] != 0  # pitch keeps its sign in a mirror, roll and yaw change theirs
        return replace(
            self,
            name=self.name.replace("left", "right"),
            parent=self.parent.replace("left", "right"),
            pos=(self.pos[0], -self.pos[1], self.pos[2]),
            quat_wxyz=(w, -x, y, -z),
            inertia_pos=(self.inertia_pos[0], -self.inertia_pos[1], self.inertia_pos[2]),
            inertia_quat_wxyz=(iw, -ix, iy, -iz),
            range_rad=(lo, hi) if pitch else (-hi, -lo),
        )


@dataclass(frozen=True)
class Motor:
    """One joint's drive: PD gains (N m/rad, N m s/rad), limits (N m, rad/s), reflected inertia (kg m^2)."""

    kp: float
    kd: float
    effort: float
    velocity: float
    armature: float


@dataclass(frozen=True)
class Shape:
    """A primitive for contact and drawing, in its body's frame. type: capsule (radius, half), box, sphere."""

    body: str
    type: str
    size: Vec
    pos: Vec
    quat_wxyz: Vec = (1.0, 0.0, 0.0, 0.0)
    role: str = "link"  # link | palm | finger | visual

    def mirrored(self) -> Shape:
        """Reflect a shape of a left link in the x-z plane to get the right one's."""
        w, x, y, z = self.quat_wxyz
        pos = (self.pos[0], -self.pos[1], self.pos[2])
        return replace(self, body=self.body.replace("left", "right"), pos=pos, quat_wxyz=(w, -x, y, -z))


@dataclass(frozen=True)
class Camera:
    """Head camera: mount in its body's frame, downward tilt (rad), vertical field of view (degrees)."""

    body: str
    pos: Vec
    tilt_rad: float
    fovy_deg: float


@dataclass(frozen=True)
class Robot:
    """A humanoid. Joint order everywhere: legs (left 6, right 6), waist, arms (left 7, right 7), then grippers (left, right).

    A leg's joints are hip pitch, roll, yaw, knee, ankle pitch, roll; the waist's first is its yaw, an arm's first
    the shoulder's pitch. There are links named pelvis (the root), torso_link, left_ankle_roll_link and
    right_ankle_roll_link, and one palm a side.

    Attributes:
        n_lmo: how many joints, the first ones, the legs' policy owns.
        imu_pos: in the pelvis frame, m. foot_site, foot_corners: in the ankle roll link's frame, m; corners are the
            lowest points.
        leg_m: length of thigh plus shank. foot_gap_m: least and largest lateral distance of the feet in a good gait.
        nominal_height_m: pelvis height of walking and standing, near the default pose's.
        height_range_m: what may be commanded; at its upper end the default pose's soles are about to touch the ground.
        hand_quat_wxyz: of the hand in its palm's frame: x along the fingers, y out of the left hand's back, z to the
            thumb's side.
        legs: name of the robot whose legs' policy drives this one, "" if it is its own.
    """

    name: str
    bodies: tuple[Body, ...]
    motors: dict[str, Motor]
    default_rad: dict[str, float]
    joints: tuple[str, ...]
    n_lmo: int
    shapes: tuple[Shape, ...]
    camera: Camera
    imu_pos: Vec
    foot_site: Vec
    foot_corners: tuple[Vec, ...]
    leg_m: float
    foot_gap_m: Vec
    nominal_height_m: float
    height_range_m: Vec
    hand_quat_wxyz: Vec = (1.0, 0.0, 0.0, 0.0)
    legs: str = ""

    @property
    def lmo_joints(self) -> tuple[str, ...]:
        """Joints that the legs' policy owns (legs and waist)."""
        return self.joints[: self.n_lmo]

    @property
    def arm_joints(self) -> tuple[str, ...]:
        """The 14 arm joints that the VLA owns, left then right."""
        return self.joints[self.n_lmo : self.n_lmo + N_ARM]

    @property
    def gripper_joints(self) -> tuple[str, ...]:
        """The left and the right gripper's joint, or nothing. Open is the default pose, closed the range's other end."""
        return self.joints[self.n_lmo + N_ARM :]

    @property
    def masked_actions(self) -> tuple[int, ...]:
        """Entries of the whole-body action that this robot does not have: they stay 0."""
        return () if self.gripper_joints else tuple(range(GRIPPER.start, GRIPPER.stop))

    def upper_rad(self, arms: ArmTarget) -> np.ndarray:
        """Return the targets of arms and grippers, the joints behind the legs' and the waist's, (14,) or (16,) rad."""
        if not self.gripper_joints:
            return arms.positions_rad
        opened, closed = self._gripper_ends()
        return np.concatenate([arms.positions_rad, opened + np.clip(arms.grippers, 0, 1) * (closed - opened)])

    def arm_target(self, upper_rad: np.ndarray) -> ArmTarget:
        """Undo `upper_rad`: targets or measured joints (14,) or (16,) rad; grippers that are not there are 0."""
        if not self.gripper_joints:
            return ArmTarget(upper_rad)
        opened, closed = self._gripper_ends()
        return ArmTarget(upper_rad[:N_ARM], np.clip((upper_rad[N_ARM:] - opened) / (closed - opened), 0, 1))

    def _gripper_ends(self) -> tuple[np.ndarray, np.ndarray]:
        grippers = slice(self.n_lmo + N_ARM, None)
        opened, ends = self.array("default")[grippers], self.range_rad[grippers]
        far = np.abs(ends - opened[:, None]).argmax(1)
        return opened, ends[np.arange(len(ends)), far]

    @property
    def palms(self) -> tuple[Shape, Shape]:
        """The left and the right hand's palm."""
        left, right = (s for s in self.shapes if s.role == "palm")
        return left, right

    @property
    def hands(self) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (3, 3) of the left and the right hand in their palms' frames, see `hand_quat_wxyz`."""
        w, x, y, z = self.hand_quat_wxyz
        return quat_matrix((w, x, y, z)), quat_matrix((w, -x, y, -z))

    @property
    def palm_half_m(self) -> np.ndarray:
        """Half sizes (3,) of a palm in its hand's frame: along the fingers, through the back, to the thumb."""
        return np.abs(self.hands[0].T @ self.palms[0].size)

    def array(self, field: str) -> np.ndarray:
        """A motor field ("kp", "kd", "effort", "velocity", "armature") or "default" in joint order, shape (J,)."""
        if field == "default":
            return np.array([self.default_rad.get(j, 0.0) for j in self.joints])
        return np.array([getattr(self.motors[j], field) for j in self.joints])

    @property
    def range_rad(self) -> np.ndarray:
        """Joint limits in joint order, shape (J, 2)."""
        by_joint = {self.joint_of(body): body.range_rad for body in self.bodies}
        return np.array([by_joint[j] for j in self.joints])

    def joint_of(self, body: Body) -> str:
        """The name of the hinge that moves a body, "" for the floating base and for welded bodies."""
        if not any(body.axis):
            return ""
        name = body.name.removesuffix("_link")
        return self.lmo_joints[-1] if name == "torso" else name  # the waist's last joint moves it

    def mirror(self) -> tuple[np.ndarray, np.ndarray]:
        """Left-right symmetry of joint vectors: (index, sign) with q_mirrored = q[index] * sign."""
        index = []
        for joint in self.joints:
            other = joint.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
            index.append(self.joints.index(other))
        sign = np.array([1.0 if "pitch" in j or "knee" in j or "elbow" in j else -1.0 for j in self.joints])
        return np.array(index), sign

    def build(self, feet: str = "spheres", collisions: str = "feet", timestep_s: float = 0.005):
        """Build the MuJoCo spec: floating base, primitive shapes, position actuators with the motors' PD and limits.

        Args:
            feet: "spheres" (four contact points a foot, fast) or "capsules" (two capsules a foot).
            collisions: "feet" (feet against the ground only), "hands" (feet and palms) or "full".
            timestep_s: physics step.
        Returns:
            mujoco.MjSpec; attach a scene to it and compile.
        """
        import mujoco

        from wbvla.robots.mjcf import build_spec

        return build_spec(mujoco, self, feet, collisions, timestep_s)


def quat_matrix(quat_wxyz: Vec) -> np.ndarray:
    """Return the rotation (3, 3) of a quaternion of any length."""
    w, *v = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def both_sides(rows: tuple[Body, ...]) -> tuple[Body, ...]:
    """Add the right side to rows of root, left leg, centre, left arm.

    MuJoCo's depth-first order is then the joint order: legs, waist, arms.
    """
    legs = rows[1:7]
    centre = tuple(b for b in rows[1:] if not b.name.startswith("left"))
    arms = rows[7 + len(centre) :]
    return (rows[0], *legs, *(b.mirrored() for b in legs), *centre, *arms, *(b.mirrored() for b in arms))


def pd_from_frequency(armature: float, hertz: float = 10.0, ratio: float = 2.0) -> tuple[float, float]:
    """PD gains that give a motor's own inertia a natural frequency and damping ratio (mjlab's rule for the G1)."""
    omega = 2.0 * math.pi * hertz
    return armature * omega**2, 2.0 * ratio * armature * omega

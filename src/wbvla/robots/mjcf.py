"""Turn a `Robot` into a MuJoCo spec.

In: wbvla.robots.base.Robot. Out: MjSpec with bodies, primitive geoms, PD position actuators, sites, sensors, cameras.
Contact bits: 1 = world and objects, 2 = robot. Robot geoms meet the world, and each other only with "full".
"""

from __future__ import annotations

import math

import numpy as np

FOOT_FRICTION = (0.8, 0.005, 0.0001)
PALM_FRICTION = (1.0, 0.05, 0.001)

# Of a wrist camera, in the left hand's frame from the middle of the palm: above the thumb, looking along the fingers.
WRIST_CAMERA_M, WRIST_TILT_RAD = (-0.06, -0.03, 0.08), math.radians(40.0)
WRIST_FOVY_DEG = 58.0  # the short side of Intel's D405, whose long one is 87 degrees


def build_spec(mujoco, robot, feet: str, collisions: str, timestep_s: float):
    """See Robot.build."""
    if feet not in ("spheres", "capsules") or collisions not in ("feet", "hands", "full"):
        raise ValueError(f"got feet={feet!r}, collisions={collisions!r}; see Robot.build for the choices")
    spec = mujoco.MjSpec()
    spec.modelname = robot.name
    spec.compiler.degree = False
    option = spec.option
    option.timestep = timestep_s
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    option.iterations, option.ls_iterations = 10, 20
    bodies = _add_bodies(mujoco, spec, robot)
    _add_shapes(mujoco, robot, bodies, feet, collisions)
    _add_sites_and_cameras(mujoco, robot, bodies)
    for joint in robot.joints:
        motor = robot.motors[joint]
        actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=motor.kp, kv=motor.kd)
        actuator.inheritrange = 0
        actuator.ctrllimited = False
        actuator.forcelimited = True
        actuator.forcerange = [-motor.effort, motor.effort]
    _add_sensors(mujoco, spec)
    # Neighbouring links overlap by design, also across two joints.
    names = {b.name: b for b in robot.bodies}
    for body in robot.bodies:
        grand = names[body.parent].parent if body.parent else ""
        if grand:
            spec.add_exclude(bodyname1=body.name, bodyname2=grand)
    return spec


def _add_bodies(mujoco, spec, robot):
    bodies = {}
    for row in robot.bodies:
        parent = spec.worldbody if row.parent == "" else bodies[row.parent]
        body = parent.add_body(name=row.name, pos=row.pos, quat=row.quat_wxyz)
        body.mass, body.ipos, body.iquat, body.inertia = row.mass, row.inertia_pos, row.inertia_quat_wxyz, row.inertia
        body.explicitinertial = True
        joint = robot.joint_of(row)
        if row.parent == "":
            body.add_freejoint(name="root")
        elif joint:
            hinge = body.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_HINGE, axis=row.axis, range=row.range_rad)
            hinge.armature = robot.motors[joint].armature
        bodies[row.name] = body
    return bodies


def _add_shapes(mujoco, robot, bodies, feet, collisions):
    kinds = {
        "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    }
    colours = {"link": (0.85, 0.86, 0.88, 1), "palm": (0.15, 0.15, 0.17, 1), "visual": (0.25, 0.27, 0.3, 1)}
    colours["finger"] = colours["visual"]
    hands = ("palm", "finger")
    for number, shape in enumerate(robot.shapes):
        solid = shape.role != "visual" and (collisions == "full" or (collisions == "hands" and shape.role in hands))
        geom = bodies[shape.body].add_geom(
            name=f"{shape.body}_{shape.role}{number}",
            type=kinds[shape.type],
            size=[*shape.size, 0, 0][:3],
            pos=shape.pos,
            quat=shape.quat_wxyz,
            mass=0,
            rgba=colours[shape.role],
            contype=2 if solid else 0,
            conaffinity=(3 if collisions == "full" else 1) if solid else 0,
        )
        if shape.role in hands:
            geom.condim, geom.priority, geom.friction, geom.solref = 4, 2, PALM_FRICTION, [0.01, 1.0]
        if shape.role == "finger":
            geom.solimp[:2] = 0.99  # friction creeps in proportion to 1 - d: at 0.9 a held cube slides by 1.6 mm/s
    for side in ("left", "right"):
        foot = bodies[f"{side}_ankle_roll_link"]
        meets = 3 if collisions == "full" else 1  # with "full" one foot meets the other
        contact = dict(contype=2, conaffinity=meets, condim=3, priority=1, friction=FOOT_FRICTION, mass=0)
        sole, half_width = min(c[2] for c in robot.foot_corners), max(c[1] for c in robot.foot_corners)
        if feet == "spheres":
            for i, (x, y, z) in enumerate(robot.foot_corners):
                foot.add_geom(
                    name=f"{side}_foot{i}", type=kinds["sphere"], size=[0.005, 0, 0], pos=[x, y, z + 0.005], **contact
                )
        else:
            xs = sorted({c[0] for c in robot.foot_corners})
            for i, y in enumerate((0.8 * half_width, -0.8 * half_width)):
                ends = [xs[0] + 0.01, y, sole + 0.01, xs[-1] - 0.01, y, sole + 0.01]
                foot.add_geom(name=f"{side}_foot{i}", type=kinds["capsule"], size=[0.01, 0, 0], fromto=ends, **contact)
        xs = [c[0] for c in robot.foot_corners]
        foot.add_geom(
            name=f"{side}_sole", type=kinds["box"], mass=0, contype=0, conaffinity=0, rgba=(0.15, 0.15, 0.17, 1),
            size=[(max(xs) - min(xs)) / 2, half_width, 0.012], pos=[(max(xs) + min(xs)) / 2, 0, sole + 0.013],
        )  # fmt: skip


def _add_sites_and_cameras(mujoco, robot, bodies):
    bodies["pelvis"].add_site(name="imu", pos=robot.imu_pos)
    for side in ("left", "right"):
        bodies[f"{side}_ankle_roll_link"].add_site(name=f"{side}_foot", pos=robot.foot_site)
    camera = robot.camera
    # MuJoCo cameras look along -z with +y up: x right = -y of the body, up tilts forward with the view.
    s, c = math.sin(camera.tilt_rad), math.cos(camera.tilt_rad)
    bodies[camera.body].add_camera(
        name="head", pos=camera.pos, xyaxes=list(np.array([0, -1, 0, s, 0, c], float)), fovy=camera.fovy_deg
    )
    s, c = math.sin(WRIST_TILT_RAD), math.cos(WRIST_TILT_RAD)
    for side, sign, turn, palm in zip(("left", "right"), (1, -1), robot.hands, robot.palms):
        bodies[palm.body].add_camera(
            name=f"{side}_wrist",
            pos=palm.pos + turn @ (WRIST_CAMERA_M * np.array([1, sign, 1])),
            xyaxes=[*turn @ [0, -1, 0], *turn @ [s, 0, c]],
            fovy=WRIST_FOVY_DEG,
        )


def _add_sensors(mujoco, spec):
    kind, obj = mujoco.mjtSensor, mujoco.mjtObj

    def add(name, sensor, what, on):
        spec.add_sensor(name=name, type=sensor, objtype=what, objname=on)

    add("gyro", kind.mjSENS_GYRO, obj.mjOBJ_SITE, "imu")
    for side in ("left", "right"):
        site = f"{side}_foot"
        add(f"{side}_foot_pos", kind.mjSENS_FRAMEPOS, obj.mjOBJ_SITE, site)
        add(f"{side}_foot_x", kind.mjSENS_FRAMEXAXIS, obj.mjOBJ_SITE, site)
        add(f"{side}_foot_z", kind.mjSENS_FRAMEZAXIS, obj.mjOBJ_SITE, site)
        add(f"{side}_foot_vel", kind.mjSENS_FRAMELINVEL, obj.mjOBJ_SITE, site)
    add("torso_z", kind.mjSENS_FRAMEZAXIS, obj.mjOBJ_XBODY, "torso_link")
    add("torso_gyro", kind.mjSENS_FRAMEANGVEL, obj.mjOBJ_XBODY, "torso_link")

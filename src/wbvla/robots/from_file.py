"""Bodies of a humanoid from its maker's MJCF or URDF, under this project's names; docs/add_robot.md is the walk-through.

In: a file, and a map from our joint names to the file's. Out: `Body` rows in our joint order. Needs MuJoCo; meshes are
not read, so the file alone is enough.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wbvla.robots.base import Body


def bodies_from_file(path: str | Path, joints: dict[str, str], links: dict[str, str] | None = None) -> tuple[Body, ...]:
    """Read the bodies.

    Args:
        path: MJCF (.xml) or URDF (.urdf) in which every link has an inertia of its own.
        joints: our joint names, in our order (legs, waist, arms), to the file's; all other joints are welded.
        links: our names of links to the file's, for example {"torso_link": "chest"}.
    Returns:
        One row a link: the root is "pelvis", a link that a joint moves is named after the joint, others as in the file.
    Raises:
        ValueError: the file cannot be read, lacks a joint, a link or an inertia, or has a joint that is no hinge at its
            link's origin; one line.
    """
    model = _skeleton(path)
    names = lambda count, of: [of(i).name for i in range(count)]  # noqa: E731
    for ours, known in ((joints, names(model.njnt, model.joint)), (links or {}, names(model.nbody, model.body))):
        for theirs in ours.values():
            if theirs not in known:
                raise ValueError(f"{path}: has nothing named {theirs!r}; it has {', '.join(n for n in known if n)}")
    joint_of_body = {int(model.joint(theirs).bodyid[0]): ours for ours, theirs in joints.items()}
    named = {int(model.body(theirs).id): ours for ours, theirs in (links or {}).items()}
    order = list(joints)
    children = {i: [k for k in range(1, model.nbody) if model.body_parentid[k] == i] for i in range(model.nbody)}

    def rank(body: int) -> int:
        """Return the place of a branch's first joint: branches come in our order."""
        here = order.index(joint_of_body[body]) if body in joint_of_body else len(order)
        return min([here, *(rank(child) for child in children[body])])

    rows: list[Body] = []

    def visit(body: int, parent: str) -> None:
        joint = joint_of_body.get(body)
        name = named.get(body) or (f"{joint}_link" if joint else model.body(body).name)
        name = name if parent else "pelvis"
        rows.append(_row(path, model, body, name, parent, joints[joint] if joint else None))
        for child in sorted(children[body], key=rank):
            visit(child, name)

    visit(children[0][0], "")
    return tuple(rows)


def _skeleton(path: str | Path):
    """Compile the file without shapes, motors and sensors: links, joints and inertias remain."""
    import mujoco

    try:
        spec = mujoco.MjSpec.from_file(str(path))
        spec.compiler.fusestatic = False
        for kind in ("geoms", "meshes", "actuators", "sensors", "tendons", "equalities", "excludes", "pairs", "keys"):
            for element in list(getattr(spec, kind)):
                spec.delete(element)
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be used ({reason}); expected MJCF or URDF with an inertia a link") from None


def _row(path: str | Path, model, body: int, name: str, parent: str, joint: str | None) -> Body:
    import mujoco

    axis, limits = np.zeros(3), np.zeros(2)
    if joint is not None:
        hinge = model.joint(joint)
        if hinge.type[0] != mujoco.mjtJoint.mjJNT_HINGE or np.abs(hinge.pos).max() > 1e-9:
            raise ValueError(f"{path}: joint {joint!r} must be a hinge at its link's origin")
        axis, limits = hinge.axis, hinge.range
    link = model.body(body)
    numbers = lambda values: tuple(float(v) for v in values)  # noqa: E731
    return Body(name, parent, numbers(link.pos), numbers(link.quat), float(link.mass[0]), numbers(link.ipos),
                numbers(link.iquat), numbers(link.inertia), numbers(axis), numbers(limits))  # fmt: skip

"""What LeRobot's commands import at start: registers wbvla's policy types, such as `--policy.type=wholebodyvla`."""

import wbvla.lerobot  # noqa: F401  (importing it is the registration)

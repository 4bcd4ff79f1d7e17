"""Kill the policy server while the simulated humanoid walks, many times, and count how often it ends standing.

In: number of trials. Out: JSON, one row a trial. Real time, real processes, SIGKILL; standing means pelvis above
0.5 m and tilt under 15 degrees 10 s after the kill. Needs the shipped legs.

    python benchmarks/server_kill.py --trials 20 --json outputs/server_kill.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from wbvla.lmo.controller import shipped_controller
from wbvla.runtime.client import PolicyClient
from wbvla.runtime.clock import WallClock
from wbvla.runtime.run import RunRobot, run_episode
from wbvla.runtime.sim_robot import SimRobot

DIRECTIONS = ((1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1), (-1, 0, 0))
AFTER_S = 10.0
SERVER = """
import sys, threading
import numpy as np
from wbvla.runtime.server import PolicyServer

class March:
    def infer(self, image, state, task):
        chunk = np.zeros((20, 20), np.float32)
        chunk[:, :14] = state[15:29]
        chunk[:, 16:19], chunk[:, 19] = [float(s) for s in sys.argv[1:4]], 0.74
        return {"chunk": chunk}

server = PolicyServer(March(), port=0)
print(server.address, flush=True)
server.serve(threading.Event())
"""


def trial(number: int, legs) -> dict:
    """Walk one way for 2-4 s, kill the server, wait 10 s, and look."""
    flags, kill_s = DIRECTIONS[number % len(DIRECTIONS)], 2.0 + 0.1 * (number % 20)
    command = [sys.executable, "-c", SERVER, *map(str, flags)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        cfg = RunRobot(server=address, seed=100_000 + number, seconds=kill_s + AFTER_S)
        clock = WallClock()
        with PolicyClient(address) as client:
            robot = SimRobot(cfg.task, cfg.robot, legs, clock, cfg.seed, cfg.image_size)
            try:
                killer = threading.Timer(kill_s, server.kill)
                killer.start()
                report = run_episode(cfg, robot, client, clock)
            finally:
                robot.close()
    finally:
        server.kill()
        server.wait()
    standing = report["pelvis_height_m"] > 0.5 and report["tilt_deg"] < 15 and not report["fallen"]
    return {
        "flags": flags,
        "kill_s": kill_s,
        "standing": standing,
        "pelvis_height_m": round(report["pelvis_height_m"], 3),
        "tilt_deg": round(report["tilt_deg"], 1),
        "mode_shares": report["loop"]["mode_shares"],
        "missed_deadlines": report["loop"]["missed_deadlines"],
        "lateness_ms_max": report["loop"]["lateness_ms_max"],
        "stopped_because": report["loop"]["stopped_because"],
    }


def main() -> None:
    """Run the trials one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    legs, rows = shipped_controller("g1"), []
    for number in range(args.trials):
        rows.append(trial(number, legs))
        print(f"{number + 1}/{args.trials} {rows[-1]}", flush=True)
    result = {
        "trials": len(rows),
        "standing": sum(row["standing"] for row in rows),
        "cpu_count": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "rows": rows,
    }
    print(f"standing after the kill: {result['standing']} of {result['trials']}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

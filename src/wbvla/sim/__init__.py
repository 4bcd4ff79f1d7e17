"""Simulated worlds: robot plus scene, tasks with rules, the scripted operator, and the 20 Hz environment."""

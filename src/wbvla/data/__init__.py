"""Datasets and videos: LeRobot v3 recording, decoded frame caches, video reading. Import the modules by name."""

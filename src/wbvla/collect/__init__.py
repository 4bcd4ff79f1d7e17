"""Collection of demonstrations and of action-free video. Import the modules by name."""

"""The VLA: image and sentence to latent codes, then with the robot's state to chunks of whole-body actions."""

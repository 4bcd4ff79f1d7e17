"""X-VLA: one policy for many robots. In: images, a sentence, a state, the robot. Out: a chunk of its actions."""

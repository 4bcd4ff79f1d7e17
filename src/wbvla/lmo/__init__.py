"""LMO: the reinforcement-learned legs. Commands and proprioception in, leg and waist joint targets out, at 50 Hz."""

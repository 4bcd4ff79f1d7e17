"""Closed-loop evaluation: rollouts, policies to compare, intervals, report. In: checkpoints. Out: scores and HTML."""

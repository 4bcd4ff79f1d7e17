"""The legs' benchmark: one file a protocol, one plant, anybody's policy given its contract (docs/lmo_bench.md)."""

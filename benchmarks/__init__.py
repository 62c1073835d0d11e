"""Speed, as ratios to a peer in one interleaved run."""

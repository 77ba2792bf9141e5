"""Effects: the mean difference between two arms, with its interval, and the units that one needs."""

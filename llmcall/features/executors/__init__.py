"""The tasks of a map in other processes: those of a pool, and of a cluster's other machines."""

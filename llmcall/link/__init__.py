"""The link between a recorded process and its recording process.

The recording process decides and answers; the recorded process sends.
"""

"""Run a script and print the peak of its memory in bytes after what it prints: ``peak_memory.py
SCRIPT ARGUMENT…``.
"""

import sys

script = sys.argv[1]
del sys.argv[0]
with open(script, "rb") as file:
    exec(compile(file.read(), script, "exec"), {"__name__": "__main__"})

try:
    # Of this program alone; getrusage counts the process that started it too, until it became this
    # one.
    with open("/proc/self/status", "rb") as file:
        print(next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"VmHWM")))
except FileNotFoundError:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else peak * 1024)

"""What passes between the parent and the template process: who is to be forked or killed, and how it ended."""

from __future__ import annotations

import struct

COMMAND = struct.Struct("!cQ")  # b"F" fork (two descriptors follow along), b"K" kill the worker of that pid
REPLY = struct.Struct("!Q")  # pid of the forked worker
STATUS = struct.Struct("!i")  # exit code of a worker, negative for a signal
READY = b"ready\n"

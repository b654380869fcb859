"""The guest's side: carries out commands that come as JSON lines on a virtio serial port. Standard library only."""

import json
import os
import select
import subprocess
import sys
import threading
from typing import Any


def answer(port: int, lock: threading.Lock, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    with lock:
        while data:
            data = data[os.write(port, data) :]


def carry_out(port: int, lock: threading.Lock, order: dict[str, Any]) -> None:
    """A line for every sign of life, so that who waits knows it from a command that stands still; then the end."""
    number, patience = order["id"], order["patience"]
    try:
        process = subprocess.Popen(
            order["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=order["cwd"],
            env={**os.environ, **order["env"]},
        )
    except OSError as error:
        answer(port, lock, {"id": number, "rc": 125, "out": str(error)})
        return
    assert process.stdout is not None
    said = bytearray()
    while ready := select.select([process.stdout], [], [], patience)[0]:
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        said += data
        answer(port, lock, {"id": number})
    if not ready:
        process.kill()
    code = process.wait() if ready else 124
    answer(port, lock, {"id": number, "rc": code, "out": said.decode(errors="replace")})


def main() -> None:
    port = os.open(sys.argv[1], os.O_RDWR)
    lock = threading.Lock()
    answer(port, lock, {"id": 0, "rc": 0, "out": os.uname().release})
    with os.fdopen(os.dup(port), "rb") as orders:
        for line in orders:
            order = json.loads(line)
            threading.Thread(target=carry_out, args=(port, lock, order), daemon=True).start()


main()

"""The guest's side: carries out commands that come as JSON lines on a virtio serial port. Standard library only."""

import json
import os
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
    try:
        done = subprocess.run(
            order["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=order["timeout"],
            cwd=order["cwd"],
            env={**os.environ, **order["env"]},
            check=False,
        )
        reply = {"id": order["id"], "rc": done.returncode, "out": done.stdout.decode(errors="replace")}
    except subprocess.TimeoutExpired as error:
        reply = {"id": order["id"], "rc": 124, "out": (error.stdout or b"").decode(errors="replace")}
    except OSError as error:
        reply = {"id": order["id"], "rc": 125, "out": str(error)}
    answer(port, lock, reply)


def main() -> None:
    port = os.open(sys.argv[1], os.O_RDWR)
    lock = threading.Lock()
    answer(port, lock, {"id": 0, "rc": 0, "out": os.uname().release})
    with os.fdopen(os.dup(port), "rb") as orders:
        for line in orders:
            order = json.loads(line)
            threading.Thread(target=carry_out, args=(port, lock, order), daemon=True).start()


main()

"""Trains a small network in processes that can be killed, each a fork of this one.

Everything is imported here once, but no JAX backend is started, so that a fork is a fresh process that need not wait
for imports. Orders come as JSON, one a line, on standard input; the answers go to standard output.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pags_jax import augmentation, checkpoints, losses, training
from scripts.pags import fit

BATCH, ROWS, EPOCHS = 8, 40, 12


class Tiny(nn.Module):
    """A convolution with batch normalisation, and a dense layer."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def train(folder: str, say: int) -> str:
    """Trains to the end and says so before each checkpoint; the digest is of everything that training made."""
    save = checkpoints.save

    def told(*args: Any, **options: Any) -> Any:
        os.write(say, b".")
        return save(*args, **options)

    checkpoints.save = told
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.integers(0, 256, (ROWS, 6, 6, 1), np.uint8))
    y = jnp.asarray(draw.integers(0, 3, ROWS), jnp.int32)
    task = training.Task(Tiny(), losses.randomized_smoothing, augmentation.crop_and_flip, BATCH)
    hyper = training.Hyper(jnp.float32(0.1), jnp.float32(0.05), training.milestones(EPOCHS, ROWS // BATCH))
    config = fit.Config(out=Path(folder), epochs=EPOCHS, save_minutes=0.0)
    (done, *_), _ = fit.fit(config, {"model": "tiny"}, task, hyper, x, y, key=jax.random.key(0))
    digest = hashlib.sha256()
    state = done.state._replace(key=jax.random.key_data(done.state.key))
    for leaf in jax.tree.leaves((state, done.metrics)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def kill_at(place: Any, name: str, *, after: bool) -> None:
    """Kills this process when it calls a function inside of its second `checkpoints.save`: before, or after."""
    real, calls = getattr(place, name), [0]

    def watched(*args: Any, **options: Any) -> Any:
        calls[0] += "save" in {frame.f_code.co_name for frame in _frames()}
        if calls[0] == 2 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, watched)


def _frames():
    frame = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back


POINTS = {"write_text": Path, "rename": Path, "rmtree": shutil}


def life(
    folder: str, *, saves: int | None = None, delay: float = 0.0, point: list[Any] | None = None
) -> dict[str, Any]:
    """One process: trains on to its end, or is killed a delay after the start of a save, or at a point inside one."""
    read, write = os.pipe()
    told, say = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.close(told)
        if point:
            kill_at(POINTS[point[0]], point[0], after=point[1])
        os.write(write, train(folder, say).encode())
        os._exit(0)
    os.close(write)
    os.close(say)
    times = []
    while os.read(told, 1):
        times.append(time.monotonic())
        if len(times) == saves:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
    digest = b""
    while more := os.read(read, 4096):
        digest += more
    os.close(read)
    os.close(told)
    ended = os.WTERMSIG(os.waitpid(child, 0)[1])
    each = (times[-1] - times[0]) / max(1, len(times) - 1) if times else 0.0
    return {"signal": ended, "digest": digest.decode(), "saves": len(times), "each": each}


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # Lines of progress are no answers.
    for line in sys.stdin:
        print(json.dumps(life(**json.loads(line))), file=answers, flush=True)

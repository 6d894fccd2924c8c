"""An application that knows nothing of budgets and behaves like ordinary applications. It prints the outcomes of its
calls as JSON.
"""

import asyncio
import builtins
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading

import sitecustomize
from calls import CALL, become

os.chdir(tempfile.mkdtemp())

import litellm  # noqa: E402
from litellm import acompletion, completion  # noqa: E402


def in_child(user, sender):
    sender.send(become(completion, user))


def crew(user):
    """CrewAI assigns the list before each of its calls."""

    def kickoff(**call):
        litellm.success_callback = []
        litellm.callbacks = []
        return litellm.completion(**call)

    return become(kickoff, user)


def replaced(user):
    litellm.callbacks = [lambda *_: None]
    return become(completion, user)


def on_a_loop(user):
    return become(lambda **call: asyncio.run(acompletion(**call)), user)


def in_a_thread(user):
    found = []
    thread = threading.Thread(target=lambda: found.extend(become(litellm.completion, user)))
    thread.start()
    thread.join()
    return found


def forked(user):
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(become(completion, user)).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reading, 1000))


def spawned(user):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=in_child, args=(user, sender))
    process.start()
    sender.close()
    return receiver.recv()


def another_python(user):
    program = f"import json, sys; sys.path.append({os.path.dirname(__file__)!r})\n"
    program += (
        f"from calls import become; from litellm import completion; print(json.dumps(become(completion, {user!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return json.loads(done.stdout)


def reloaded(user):
    importlib.reload(litellm)
    return become(litellm.completion, user)


WAYS = (become, replaced, crew, on_a_loop, in_a_thread, forked, spawned, another_python, reloaded)

if __name__ == "__main__":
    said = {way.__name__: way(way.__name__) if way is not become else become(completion, "become") for way in WAYS}
    loader = type(litellm.__spec__.loader).__module__
    print(
        json.dumps({"said": said, "argv": sys.argv[1:], "site": sitecustomize.MINE + builtins.MINE, "loader": loader})
    )
    sys.exit(len(CALL))

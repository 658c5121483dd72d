#!/usr/bin/env python3
"""Asks `nerve serve` from many clients at once and holds every answer against that of a lone request.

usage: serve_load.py NERVE RUN [--seconds S] [--clients N] [--seed K] [-- FLAGS OF SERVE]

A tenth of the requests is given up in the middle, a tenth is garbage. Exit 0 if every answer is the lone one to the bit, no
status is 5xx, and after the first fifth of the time (at most two minutes) memory grows by less than a twentieth.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time

WORDS = "once upon a time there was the cat dog who said no and then ran away over hill to see his old friend".split()


def requests_of(draw, n):
    """Requests of mixed kinds and lengths."""
    found = []
    for index in range(n):
        text = " ".join(draw.choices(WORDS, k=draw.choice([1, 3, 8, 20])))
        request = {
            "prompt": text[: draw.choice([4, 10, 20, 30])],
            "max_tokens": draw.choice([0, 1, 5, 16, 40, 100]),
            "temperature": draw.choice([0, 0.7, 1.3]),
            "top_p": draw.choice([1, 0.9]),
            "seed": index,
            "echo": draw.random() < 0.3,
            "ignore_eos": draw.random() < 0.5,
        }
        if draw.random() < 0.5:
            request["logprobs"] = draw.choice([0, 1, 5])
        if draw.random() < 0.2:
            request["stop"] = ["e", " a"]
        if draw.random() < 0.2:
            request["n"] = 3
        if draw.random() < 0.2:
            request["return_routes"] = True
        found.append(request)
    return found


GARBAGE = [
    b"",
    b"{",
    b"[[[[",
    b'{"prompt": 1e999}',
    b'{"prompt": [1, "a"]}',
    b'{"prompt": "a", "max_tokens": -5}',
    b'{"prompt": "a", "heat": 1}',
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": [99999999]}',
    b"[" * 1000,
]


class Client:
    """A connection that is kept, as most clients do."""

    def __init__(self, host, port):
        self.place, self.reader, self.writer = (host, port), None, None

    async def open(self):
        if self.writer is None or self.writer.is_closing():
            self.reader, self.writer = await asyncio.open_connection(*self.place)

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    async def send(self, body, path="/v1/completions"):
        await self.open()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        if "transfer-encoding: chunked" in head:
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            body = await self.reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return status, body

    async def ask(self, body):
        await self.send(body)
        return await self.answer()


def choices_of(body, streamed):
    """What an answer says, however it came."""
    if not streamed:
        return [(of["index"], of["text"], of["finish_reason"], json.dumps(of.get("logprobs")), json.dumps(of.get("routes")))
                for of in json.loads(body)["choices"]]
    texts, lns, routes, ends = {}, {}, {}, {}
    lines = [line[6:] for line in body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]", lines[-1]
    for line in lines[:-1]:
        (of,) = json.loads(line)["choices"]
        index = of["index"]
        texts[index] = texts.get(index, "") + of["text"]
        ends[index] = of["finish_reason"] or ends.get(index)
        if of.get("routes") is not None:
            routes.setdefault(index, []).extend(of["routes"])
        for name, values in (of.get("logprobs") or {}).items():
            lns.setdefault(index, {}).setdefault(name, []).extend(values)
    return [(index, texts[index], ends[index], json.dumps(lns.get(index)), json.dumps(routes.get(index)))
            for index in sorted(texts)]


async def client(place, requests, lone, end, seed, count):
    draw = random.Random(seed)
    connection = Client(*place)
    while time.monotonic() < end:
        kind = draw.random()
        index = draw.randrange(len(requests))
        request = dict(requests[index])
        streamed = draw.random() < 0.4
        request["stream"] = streamed
        body = json.dumps(request).encode()
        try:
            if kind < 0.1:
                status, _ = await connection.ask(draw.choice(GARBAGE))
                if not 400 <= status < 500:
                    count["wrong"].append(f"garbage had status {status}")
                count["garbage"] += 1
            elif kind < 0.2:
                await connection.send(body)
                await asyncio.sleep(draw.random() * 0.05)
                connection.close()
                count["given up"] += 1
            else:
                status, answer = await connection.ask(body)
                if status == 429:
                    count["429"] += 1
                    await asyncio.sleep(0.1)
                elif status != 200:
                    count["wrong"].append(f"status {status}: {answer[:200]}")
                elif choices_of(answer, streamed) != lone[index]:
                    count["wrong"].append(f"another answer to {request}")
                else:
                    count["equal"] += 1
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            count["wrong"].append(f"{type(error).__name__} at {body[:80]}")
            connection.close()
    connection.close()


def resident_kb(process):
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


async def watch(process, end, memory):
    while time.monotonic() < end:
        memory.append((time.monotonic(), resident_kb(process)))
        await asyncio.sleep(1)


async def load(process, address, arguments):
    host, port = address.removeprefix("http://").rsplit(":", 1)
    requests = requests_of(random.Random(arguments.seed), 200)
    alone = Client(host, port)
    lone = []
    for request in requests:
        status, body = await alone.ask(json.dumps(request).encode())
        assert status == 200, body
        lone.append(choices_of(body, False))
    alone.close()
    began = time.monotonic()
    end = began + arguments.seconds
    count = {"equal": 0, "garbage": 0, "given up": 0, "429": 0, "wrong": []}
    memory = []
    clients = [client((host, port), requests, lone, end, arguments.seed * 1000 + index, count)
               for index in range(arguments.clients)]
    await asyncio.gather(watch(process, end, memory), *clients)
    settled = [kb for at, kb in memory if at > began + min(120, arguments.seconds / 5)]
    third = max(1, len(settled) // 3)
    before, after = max(settled[:third]), max(settled[-third:])
    print({**count, "wrong": len(count["wrong"])})
    print(f"memory: {before / 1000:.1f} MB in the first third after settling, {after / 1000:.1f} MB in the last")
    for wrong in count["wrong"][:10]:
        print("wrong:", wrong)
    return not count["wrong"] and count["equal"] > 0 and after < 1.05 * before


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nerve")
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    command = [arguments.nerve, "serve", arguments.run, "--port", "0", *arguments.flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            holds = asyncio.run(load(server.pid, address, arguments))
        finally:
            server.terminate()
    sys.exit(0 if holds and server.returncode == 0 else 1)


if __name__ == "__main__":
    main()

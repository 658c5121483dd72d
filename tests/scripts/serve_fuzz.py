#!/usr/bin/env python3
"""Sends mutated requests to `nerve serve`: each has to be answered with a status below 500, and memory must not grow.

usage: serve_fuzz.py NERVE RUN [--requests N] [--seed K]

At the end come a body of 1 GB, JSON that is 100,000 deep and a flood of headers. Exit 0 if the server has refused these, has
answered everything and still answers.
"""

import argparse
import json
import random
import socket
import subprocess
import sys

from serve_load import resident_kb

PATHS = ["/v1/completions"] * 6 + ["/tokenize", "/detokenize", "/v1/models", "/health", "/metrics", "/tokenizer_info", "/nothing"]
BODIES = [
    {"prompt": "Once upon", "max_tokens": 3, "temperature": 0},
    {"prompt": ["a", "b"], "n": 2, "max_tokens": 2, "logprobs": 3, "echo": True},
    {"prompt": [1, 2, 3], "max_tokens": 1, "stop": ["x", "yz"], "top_p": 0.5, "top_k": 4, "seed": 9},
    {"prompt": [[1, 2], [3]], "max_tokens": 0, "echo": True, "logprobs": True, "return_routes": True},
    {"prompt": "a", "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}},
    {"tokens": [1, 2, 3]},
    {"prompt": "a<s>b", "add_special_tokens": False, "return_token_strs": True},
]
VALUES = [None, True, False, 0, -1, 1, 2.5, 1e308, -1e308, 1 << 63, -(1 << 63), 1 << 80, "", "a", "\u0000", "\ud800", [], {}, [[]],
          [0], [-1], [1 << 40], ["a", 1], {"a": 1}, "\U0001f600" * 10]


def mutated(draw):
    """A request, head and body."""
    body = json.loads(json.dumps(draw.choice(BODIES)))
    for _ in range(draw.randrange(4)):
        name = draw.choice(list(body) or ["prompt"])
        kind = draw.randrange(4)
        if kind == 0:
            body[name] = draw.choice(VALUES)
        elif kind == 1:
            body.pop(name, None)
        elif kind == 2:
            body[draw.choice(["n", "logprobs", "stop", "suffix", "max_tokens", "x" * 50, "\n"])] = draw.choice(VALUES)
        else:
            body[name] = [body.get(name)] * draw.randrange(4)
    text = json.dumps(body).encode()
    if draw.random() < 0.4:
        text = bytearray(text)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(text) + 1)
            kind = draw.randrange(3)
            if kind == 0 and place < len(text):
                text[place] = draw.randrange(256)
            elif kind == 1:
                text[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
            else:
                del text[place : place + draw.randrange(1, 20)]
        text = bytes(text)
    method = draw.choice(["POST"] * 8 + ["GET", "PUT", "DELETE"])
    head = f"{method} {draw.choice(PATHS)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n".encode()
    if draw.random() < 0.1:
        head += draw.choice([b"X-A: b\r\n" * draw.randrange(100), b"Accept: \xff\r\n", b"Authorization: Bearer x\r\n", b"Expect: 100-continue\r\n"])
    whole = head + b"\r\n" + text
    if draw.random() < 0.05:
        broken = bytearray(whole)
        broken[draw.randrange(min(60, len(broken)))] = draw.randrange(256)
        return bytes(broken), True
    return whole, False


class Connection:
    def __init__(self, place):
        self.place, self.stream = place, None

    def status(self, request, last):
        """Of the answer; None if the connection was closed without one."""
        if self.stream is None:
            self.stream = socket.create_connection(self.place, timeout=60)
        if last:
            # What follows a broken head may be taken for another request.
            request += b"\r\n\r\n"
        try:
            self.stream.sendall(request)
        except OSError:
            pass
        try:
            status = self.read()
        except (OSError, ValueError):
            status = None
        if last or status is None:
            self.close()
        return status

    def more(self):
        data = self.stream.recv(65536)
        if not data:
            raise OSError("closed")
        return data

    def read(self, data=b""):
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, body = data.split(b"\r\n\r\n", 1)
        status = int(head.split()[1])
        if status == 100:
            return self.read(body)
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            while not body.endswith(b"0\r\n\r\n"):
                body += self.more()
        else:
            length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length" in lower else 0
            while len(body) < length:
                body += self.more()
        if b"connection: close" in lower:
            self.close()
        return status

    def close(self):
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def huge(place):
    """A body of 1 GB, sent until the server closes."""
    with socket.create_connection(place, timeout=60) as stream:
        stream.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        piece, sent = b"a" * (1 << 20), 0
        try:
            while sent < 1_000_000_000:
                stream.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        try:
            answer = stream.recv(65536)
        except OSError:
            answer = b""
        return answer.split()[1:2], sent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nerve")
    parser.add_argument("run")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with subprocess.Popen([arguments.nerve, "serve", arguments.run, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        host, port = server.stdout.readline().strip().removeprefix("http://").rsplit(":", 1)
        place = (host, int(port))
        connection, counts, wrong, memory = Connection(place), {}, [], []
        for index in range(arguments.requests):
            request, broken = mutated(draw)
            status = connection.status(request, broken)
            counts[status] = counts.get(status, 0) + 1
            if (status is None and not broken) or (status or 0) >= 500:
                wrong.append((status, request))
            if index % max(1, arguments.requests // 20) == 0:
                memory.append(resident_kb(server.pid))
        print("statuses:", dict(sorted(counts.items(), key=str)))
        print("memory in MB:", [kb // 1000 for kb in memory])
        before = resident_kb(server.pid)
        status, sent = huge(place)
        print(f"a body of 1 GB: status {status} after {sent / 1e6:.0f} MB")
        deep = b"[" * 100_000
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(deep)
        deep = Connection(place).status(head + deep, False)
        flood = Connection(place).status(b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 100_000 + b"\r\n", False)
        print(f"JSON 100,000 deep: {deep}; 100,000 headers: {flood}")
        after = resident_kb(server.pid)
        print(f"memory before and after these: {before / 1000:.1f} and {after / 1000:.1f} MB")
        alive = Connection(place).status(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", False)
        server.terminate()
        for status, request in wrong[:10]:
            print("wrong:", status, request[:300])
        flat = memory[-1] < 1.05 * max(memory[len(memory) // 4], 1) and after < before + 20_000
        refused = status in ([b"413"], []) and sent < 100_000_000 and deep == 400 and flood in (431, None)
    sys.exit(0 if not wrong and flat and refused and alive == 200 and server.returncode == 0 else 1)


if __name__ == "__main__":
    main()

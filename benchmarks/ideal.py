"""How soon the work can be done at all: a client that costs nothing, before a server with so many slots, first come first
served.

The graph of a conversation is the one that ``influence simulate`` and ``bare_loop.py`` follow: agent -> rating || transition
|| user -> agent; the user's message alone is waited for. No client that asks the same is faster, but by luck in the order.
"""

import heapq
import math
import random
import statistics
from collections import deque

TEXT_TOKENS, JUDGE_TOKENS = 64, 1
DRAWS = 9


def makespan(conversations, turns, slots, prefill, token, sigma, seed):
    """Return the seconds until the last answer; a latency is ``prefill + tokens * token`` times a lognormal of mean one."""
    draw = random.Random(seed)
    left = [turns] * conversations
    waiting = deque((number, "agent") for number in range(conversations))
    busy, now = [], 0.0
    while waiting or busy:
        while waiting and len(busy) < slots:
            number, role = waiting.popleft()
            seconds = prefill + token * (TEXT_TOKENS if role in ("agent", "user") else JUDGE_TOKENS)
            heapq.heappush(busy, (now + seconds * math.exp(draw.gauss(-sigma * sigma / 2, sigma)), number, role))
        now, number, role = heapq.heappop(busy)
        if role == "agent":
            left[number] -= 1
            waiting.extend((number, judge) for judge in ("preference", "transition"))
            if left[number]:
                waiting.append((number, "user"))
        elif role == "user":
            waiting.append((number, "agent"))
    return now


def ideal(conversations, turns, slots, prefill, token, sigma):
    """Return the median of several draws of :func:`makespan`."""
    draws = range(DRAWS if sigma else 1)
    return statistics.median(makespan(conversations, turns, slots, prefill, token, sigma, seed) for seed in draws)

"""What is achievable: a bare asyncio loop on aiohttp with the same call graph, and nothing else.

agent -> rating || transition || user, five turns, the last one without a user message. It prints ``RESULT {json}``.
"""

import argparse
import asyncio
import json
import resource
import time

import aiohttp
import orjson
import uvloop

SYSTEM = "You are a companion in an app for emotional support. Talk as one warm, attentive person would. " * 3
FIRST = "I've been trying to stick to this diet for weeks now, but it's so hard. Every night I am at the fridge. " * 4
HEADERS = {"content-type": "application/json"}


def text_body(history, me):
    messages = [{"role": "assistant" if speaker == me else "user", "content": text} for speaker, text in history]
    return {"model": "gpt-4o", "max_tokens": 64, "messages": [{"role": "system", "content": SYSTEM}, *messages]}


def judge_body(history, question):
    told = "\n".join(f"<{speaker}>\n{text}\n</{speaker}>" for speaker, text in history)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{told}\n\n{question}"}]
    return {"model": "gpt-4o", "max_tokens": 1, "logprobs": True, "top_logprobs": 20, "messages": messages}


async def conversation(number, turns, call):
    history = [("user", f"{FIRST} ({number})")]
    for turn in range(1, turns + 1):
        history.append(("agent", (await call(text_body(history, "agent")))["choices"][0]["message"]["content"]))
        asked = [
            call(judge_body(history, "Rate the reply. Answer only with a whole number from 1 to 10.")),
            call(judge_body(history, "Does this user leave now? Answer only with yes or no.")),
        ]
        if turn < turns:
            asked.append(call(text_body(history, "user")))
        answers = await asyncio.gather(*asked)
        if turn < turns:
            history.append(("user", answers[2]["choices"][0]["message"]["content"]))


async def run(arguments):
    limit = asyncio.Semaphore(arguments.concurrency)
    connector = aiohttp.TCPConnector(limit=arguments.concurrency)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as session:

        async def call(body):
            async with (
                limit,
                session.post(
                    f"{arguments.base_url}/chat/completions", data=orjson.dumps(body), headers=HEADERS
                ) as answer,
            ):
                answer.raise_for_status()
                return orjson.loads(await answer.read())

        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.gather(*(conversation(i, arguments.turns, call) for i in range(arguments.conversations)))
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print("RESULT " + json.dumps({"work_s": seconds, "work_cpu_s": cpu, "peak_mb": after.ru_maxrss / 1024}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--conversations", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=256)
    uvloop.run(run(parser.parse_args()))

"""The reference for local models: all conversations in step, one static batch a role, transcripts read again each time.

What a plain loop over ``generate`` does: every turn, agent, preference, transition, veto and user are asked for the
whole batch before anything else happens; a judge's answer is one generated token. Prompts, seeds and the state machine
are those of the environment. Prints ``RESULT {json}``.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from influence_cli.environments.loading import load_environment
from influence_cli.environments.sampling import episodes
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Message
from influence_cli.seeding import unit_draw

JUDGES = ("preference", "transition", "veto")


class Conversation:
    def __init__(self, episode):
        self.episode = episode
        self.state = episode.start
        self.messages = [Message(speaker=m.speaker, text=m.text) for m in episode.opening()]
        self.ratings = []

    def hear(self, speaker, text):
        self.messages.append(Message(speaker=speaker, text=text.strip() or "..."))


class LockStep:
    def __init__(self, folder, batch, dtype="float32"):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.batch = batch
        self.prompt_tokens = self.completion_tokens = 0

    def inputs(self, prompts):
        chats = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in prompts]
        texts = self.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        self.prompt_tokens += int(inputs["attention_mask"].sum())
        return inputs

    def say(self, role, conversations, forced):
        for start in range(0, len(conversations), self.batch):
            part = conversations[start : start + self.batch]
            inputs = self.inputs([c.episode.prompt(role, c.state, c.messages) for c in part])
            most = forced or part[0].episode.sampling(role).max_tokens
            with torch.inference_mode():
                out = self.model.generate(
                    **inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=most, min_new_tokens=forced,
                    pad_token_id=self.tokenizer.pad_token_id,
                )  # fmt: skip
            fresh = out[:, inputs["input_ids"].shape[1] :]
            self.completion_tokens += int((fresh != self.tokenizer.pad_token_id).sum())
            for conversation, text in zip(
                part, self.tokenizer.batch_decode(fresh, skip_special_tokens=True), strict=True
            ):
                conversation.hear(role, text)

    def judge(self, role, conversations):
        """Return each conversation's probabilities of the first tokens of the choices."""
        found = []
        for start in range(0, len(conversations), self.batch):
            part = conversations[start : start + self.batch]
            inputs = self.inputs([c.episode.prompt(role, c.state, c.messages) for c in part])
            with torch.inference_mode():
                out = self.model.generate(
                    **inputs, do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True,
                    pad_token_id=self.tokenizer.pad_token_id,
                )  # fmt: skip
            for conversation, logits in zip(part, out.logits[0], strict=True):
                choices = conversation.episode.choices(role, conversation.state)
                first = [self.tokenizer.encode(choice, add_special_tokens=False)[0] for choice in choices]
                found.append(dict(zip(choices, torch.softmax(logits[first], 0).tolist(), strict=True)))
        return found

    def turn(self, live, forced, *, last):
        self.say("agent", live, forced)
        answers = {role: self.judge(role, live) for role in JUDGES}
        staying = []
        for conversation, rating, moved in zip(live, answers["preference"], answers["transition"], strict=True):
            conversation.ratings.append(sum(float(c) * p for c, p in rating.items()))
            point = unit_draw(conversation.episode.record.seed, len(conversation.ratings))
            label = next(iter(moved)) if point < next(iter(moved.values())) else list(moved)[-1]
            conversation.state = conversation.episode.spec.states[conversation.state].transitions[label]
            if not conversation.episode.terminal(conversation.state):
                staying.append(conversation)
        if not last and staying:
            self.say("user", staying, forced)
        return staying


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, required=True, help="an environment's folder")
    parser.add_argument("--folder", required=True, help="a model's folder")
    parser.add_argument("--conversations", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--forced", type=int, default=0, help="every reply has so many tokens; 0: natural lengths")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    environment = load_environment(arguments.env)
    config = SimulationConfig(n=arguments.conversations, turns=arguments.turns)
    engine = LockStep(arguments.folder, arguments.batch, arguments.dtype)
    live = [Conversation(episode) for episode in episodes([environment], config)]
    started = time.perf_counter()
    turns = 0
    for number in range(1, arguments.turns + 1):
        turns += len(live)
        live = engine.turn(live, arguments.forced, last=number == arguments.turns)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT " + json.dumps({"work_s": seconds, "turns": turns, "prompt_tokens": engine.prompt_tokens,
                                  "computed_tokens": engine.prompt_tokens, "completion_tokens": engine.completion_tokens,
                                  "peak_mb": peak}))  # fmt: skip


if __name__ == "__main__":
    main()

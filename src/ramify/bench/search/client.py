"""A search by a client that knows no tree handles: every expansion resends its path as text.

The algorithm's controller runs here, on a tree of the client's own. All expansions that it asks for
at once are sent at once and heard of together: steps of equal length end together in the engine's
own tree too, and an algorithm without levels would else depend on which request is a step ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ramify import LLM
from ramify.bench.search.server import Choice, CompletionBody, CompletionReply, CompletionServer
from ramify.core.seeds import child_seed
from ramify.engine.request import Request
from ramify.search.controller import (
    Action,
    Controller,
    Event,
    Expand,
    Finish,
    Finished,
    Mark,
    Prune,
    Spawned,
    Started,
)
from ramify.search.tree import LogicalTree, NodeState

_READ_REPLY = msgspec.json.Decoder(CompletionReply)


@dataclass(kw_only=True, eq=False)
class _Sent:
    """An expansion on its way; its samples may be spread over several requests."""

    action: Expand
    first_sample: int
    requests: list[Request]


class ResendSearch:
    """One search. `is_split`: a request for every branch instead of one for an expansion's n."""

    def __init__(
        self, llm: LLM, controller: Controller, prompt: str, *, seed: int, is_split: bool
    ) -> None:
        self.server = CompletionServer(llm)
        # the client counts tokens of answers only, so its root needs none
        self.tree = LogicalTree([], prompt, seed)
        self.finish: Finish | None = None
        self._engine, self._controller, self._is_split = llm.engine, controller, is_split
        self._sent: list[_Sent] = []
        self._num_samples: dict[int, int] = {}

    def run(self) -> None:
        """Search to the end. Raises what the engine raises of a request."""
        events: list[Event] = [Started(root=self.tree.root)]
        while self.finish is None:
            for action in self._controller.advance(self.tree, events):
                self._perform(action)
            events = self._collect()
            while not events and self._sent:
                self._engine.step()
                events = self._collect()
        self._engine.settle()

    def _perform(self, action: Action) -> None:
        match action:
            case Expand():
                self._send(action)
            case Mark():
                self.tree[action.node].score = action.score
            case Prune():
                # the server cannot hear of it: the KV stays until it is evicted
                for node in self.tree.subtree(action.node):
                    node.state = NodeState.PRUNED
            case Finish():
                self.finish = action
            case _:
                raise AssertionError(f"a search over samples does not ask for {action}")

    # ── requests ─────────────────────────────────────────────────────────────────────────────────
    def _send(self, action: Expand) -> None:
        first = self._num_samples.get(action.node, 0)
        self._num_samples[action.node] = first + action.k
        prompt = self.tree[self.tree.root].text + self.tree.completion_text(action.node)
        seed = self.tree[action.node].seed
        if self._is_split:
            seeds = [child_seed(seed, first + i) for i in range(action.k)]
            bodies = [self._body(action, prompt, n=1, seed=one) for one in seeds]
        else:
            bodies = [self._body(action, prompt, n=action.k, seed=seed, first_sample=first)]
        requests = [self.server.post(body) for body in bodies]
        self._sent.append(_Sent(action=action, first_sample=first, requests=requests))

    @staticmethod
    def _body(action: Expand, prompt: str, *, n: int, seed: int, first_sample: int = 0) -> bytes:
        params = action.params
        body = CompletionBody(
            prompt=prompt,
            n=n,
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            seed=seed,
            first_sample=first_sample,
            stop=params.stop_strings,
            include_stop_str_in_output=params.include_stop_str_in_output,
            ignore_eos=params.ignore_eos,
            skip_special_tokens=params.skip_special_tokens,
        )
        return msgspec.json.encode(body)

    # ── replies ──────────────────────────────────────────────────────────────────────────────────
    def _collect(self) -> list[Event]:
        """Events of all that was sent, in that order, once every sample is there."""
        if not all(request.is_done for sent in self._sent for request in sent.requests):
            return []
        over, self._sent = self._sent, []
        return [event for sent in over for event in self._answer(sent)]

    def _answer(self, sent: _Sent) -> list[Event]:
        action = sent.action
        replies = [_READ_REPLY.decode(self.server.reply(r)) for r in sent.requests]
        choices = [choice for reply in replies for choice in reply.choices]
        seed = self.tree[action.node].seed
        seeds = [child_seed(seed, sent.first_sample + i) for i in range(len(choices))]
        nodes = [self._grow(action, *made) for made in zip(choices, seeds, strict=True)]
        spawned = Spawned(parent=action.node, nodes=tuple(nodes), tag=action.tag)
        return [spawned, *(Finished(node=node, tag=action.tag) for node in nodes)]

    def _grow(self, action: Expand, choice: Choice, seed: int) -> int:
        node = self.tree.add(action.node, seed=seed, tag=action.tag)
        node.state = NodeState.IDLE
        node.token_ids, node.text = choice.token_ids, choice.text
        node.cumulative_logprob += choice.cumulative_logprob
        node.finish_reason = "stop" if choice.finish_reason == "stop" else "length"
        node.stop_reason = choice.stop_reason
        self.tree.generated_tokens += len(choice.token_ids)
        return node.id

"""Carry out a controller's actions: check them, then turn them into tasks and edits of the tree."""

from __future__ import annotations

from ramify.core.errors import InputError, expected_got
from ramify.core.seeds import given_seed
from ramify.engine.beams import edit, select
from ramify.engine.live import LiveTrees
from ramify.engine.request import Fan, Force, Request
from ramify.search.controller import (
    Action,
    Append,
    AppendTree,
    Close,
    Expand,
    Failed,
    Finish,
    Mark,
    Prune,
    Score,
    Select,
)
from ramify.search.tree import LogicalNode, NodeState


def perform(live: LiveTrees, request: Request, action: Action) -> None:
    """Carry out one action of a request's controller.

    Raises:
        InputError: the action breaks the protocol, or names tokens or parameters that do not fit
            the model; nothing was changed.
    """
    if isinstance(action, Finish):
        for output in action.outputs:
            _node(request, output)
        live.finish(request, action)
        return
    if isinstance(action, Select):
        select(live, request, action)
        return
    if request.beams is not None:  # paths must be those that were selected
        edit(live, request.beams)
    node = _node(request, action.node)
    match action:
        case Expand():
            _expand(live, request, node, action)
        case Append():
            _append(live, request, node, action)
        case AppendTree():
            _append_tree(live, request, node, action)
        case Score():
            _score(live, request, node, action)
        case Mark():
            node.score = action.score
        case Prune():
            _check_off_front(request, {step.id for step in request.tree.subtree(node.id)})
            live.prune(request, node.id)
        case Close():
            is_growing = any(
                task.node == node.id and not isinstance(task, Force)
                for task in request.tasks.values()
            )
            if is_growing:
                got = "an Expand that is not answered"
                raise InputError(expected_got(f"node {node.id}", "no growth under way", got))
            _check_off_front(request, {node.id})
            live.close(request, node)


def _node(request: Request, node: int) -> LogicalNode:
    if node not in request.tree:
        raise InputError(expected_got("node", "a node of this tree", node))
    found = request.tree[node]
    if found.state is NodeState.PRUNED:
        raise InputError(expected_got(f"node {node}", "a node that is not pruned", "pruned"))
    return found


def _expand(live: LiveTrees, request: Request, node: LogicalNode, action: Expand) -> None:
    _check_idle(node)
    if action.k < 1:
        raise InputError(expected_got("Expand.k", "an int >= 1", action.k))
    live.rules.check_params(action.params)
    if _fits(live, request, action, 1):
        task_id = live.next_task_id()
        live.add_task(Fan(id=task_id, request=request, node=node.id, action=action))


def _append(live: LiveTrees, request: Request, node: LogicalNode, action: Append) -> None:
    _check_idle(node)
    tokens = live.codec.encode(action.tokens)
    if not _fits(live, request, action, len(tokens)):
        return
    if action.structured is not None:
        live.rules.grammars.start(action.structured)
    child = _add_given(live, request, node, tokens, action.tag)
    child.structured = action.structured
    _force(live, request, child.id, action, tokens)


def _append_tree(live: LiveTrees, request: Request, node: LogicalNode, action: AppendTree) -> None:
    _check_idle(node)
    depth = _depths(action)
    if not _fits(live, request, action, max(depth)):
        return
    children: list[LogicalNode] = []
    tasks: list[Force] = []
    for place, (token, above) in enumerate(zip(action.tokens, action.parent, strict=True)):
        parent, below = (node, None) if above < 0 else (children[above], tasks[above])
        tokens = live.codec.encode((token,))
        child = _add_given(live, request, parent, tokens, action.tag)
        append = Append(node=parent.id, tokens=tokens, top=int(place in action.ask), tag=place)
        children.append(child)
        tasks.append(_force(live, request, child.id, append, tokens, below))


def _depths(action: AppendTree) -> list[int]:
    """Tokens from the node down to each token. Raises InputError for what is no tree."""
    size, depth = len(action.tokens), [0]
    if not size or len(action.parent) != size:
        got = f"{size} and {len(action.parent)}"
        raise InputError(expected_got("AppendTree", "tokens, and a parent for each", got))
    for place, above in enumerate(action.parent):
        if not -1 <= above < place:
            wanted = f"a place before {place}, or -1"
            raise InputError(expected_got(f"AppendTree.parent[{place}]", wanted, above))
        depth.append(depth[above + 1] + 1)
    if not set(action.ask) <= set(range(size)):
        raise InputError(expected_got("AppendTree.ask", f"places below {size}", action.ask))
    return depth[1:]


def _add_given(
    live: LiveTrees, request: Request, node: LogicalNode, tokens: tuple[int, ...], tag: object
) -> LogicalNode:
    """A child of given tokens that are still to be computed."""
    child = request.tree.add(node.id, seed=given_seed(node.seed, tokens), tag=tag)
    child.token_ids = list(tokens)
    child.text = live.codec.decode(tokens, skip_special_tokens=True)
    return child


def _score(live: LiveTrees, request: Request, node: LogicalNode, action: Score) -> None:
    _check_idle(node)
    if action.reward:
        live.value(request, action)
        return
    for label in action.labels:
        live.codec.label(label)
    if action.structured is not None:
        live.rules.grammars.start(action.structured)
    tokens = live.codec.encode(action.suffix)
    if _fits(live, request, action, len(tokens)):
        _force(live, request, node.id, action, tokens)


def _check_off_front(request: Request, nodes: set[int]) -> None:
    """Only a `Select` decides what becomes of the front."""
    beams = request.beams
    if beams is not None and not nodes.isdisjoint(beams.front.nodes):
        raise InputError(expected_got("node", "none of the front or above it", min(nodes)))


def _check_idle(node: LogicalNode) -> None:
    """Only a complete node may be grown from or asked about."""
    if node.state is not NodeState.IDLE:
        wanted = "complete and not closed"
        raise InputError(expected_got(f"node {node.id}", wanted, node.state.value))


def _fits(
    live: LiveTrees, request: Request, action: Expand | Append | AppendTree | Score, num_tokens: int
) -> bool:
    """Whether a node's path has room for more tokens; if not, the controller hears of it."""
    length = request.tree.path_length(action.node)
    limit = live.limits.max_context
    if length + num_tokens <= limit:
        return True
    reason = f"a path of {length} + {num_tokens} tokens exceeds the context of {limit}"
    request.events.append(Failed(node=action.node, reason=reason, tag=action.tag))
    return False


def _force(
    live: LiveTrees,
    request: Request,
    node: int,
    action: Append | Score,
    tokens: tuple[int, ...],
    below: Force | None = None,
) -> Force:
    task = Force(
        id=live.next_task_id(),
        request=request,
        node=node,
        action=action,
        tokens=tokens,
        below=below,
    )
    live.add_task(task)
    return task

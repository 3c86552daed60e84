"""Search controllers: one algorithm per file, pure: view and events in, actions out."""

from ramify.search.beam import BeamSearch
from ramify.search.best_of_n import BestOfN
from ramify.search.budget import Budget
from ramify.search.controller import (
    Action,
    Append,
    Appended,
    AppendTree,
    Candidates,
    Close,
    Controller,
    Event,
    Expand,
    Failed,
    Finish,
    Finished,
    Mark,
    Prune,
    Ranked,
    Score,
    Scored,
    Select,
    Spawned,
    Started,
)
from ramify.search.depth_first import DepthFirst
from ramify.search.diverse_beam import DiverseBeamSearch
from ramify.search.dvts import DiverseVerifierTreeSearch
from ramify.search.graph_of_thoughts import GraphOfThoughts, Plan
from ramify.search.http_scorer import HttpScorer
from ramify.search.mcts import MonteCarloTreeSearch
from ramify.search.particle_filter import ParticleFilter
from ramify.search.rebase import Rebase
from ramify.search.recorded import RecordedTree, load_recorded_trees
from ramify.search.registry import make_controller
from ramify.search.replay import Replay
from ramify.search.sample import Sample
from ramify.search.scorer import (
    PATH_PROBABILITY,
    REWARD,
    AnyScorer,
    BatchScorer,
    Judge,
    NodeScorer,
    Scorer,
    Value,
    with_reward,
)
from ramify.search.tree import LogicalNode, LogicalTree, NodeState, TreeView
from ramify.search.tree_of_thoughts import TreeOfThoughts

__all__ = [
    "BeamSearch",
    "BestOfN",
    "DepthFirst",
    "DiverseBeamSearch",
    "DiverseVerifierTreeSearch",
    "GraphOfThoughts",
    "MonteCarloTreeSearch",
    "ParticleFilter",
    "Rebase",
    "Replay",
    "Sample",
    "TreeOfThoughts",
    "make_controller",
    "Budget",
    "Plan",
    "Judge",
    "AnyScorer",
    "Scorer",
    "BatchScorer",
    "NodeScorer",
    "HttpScorer",
    "PATH_PROBABILITY",
    "REWARD",
    "with_reward",
    "Value",
    "RecordedTree",
    "load_recorded_trees",
    "Controller",
    "Action",
    "Expand",
    "Append",
    "AppendTree",
    "Score",
    "Select",
    "Mark",
    "Prune",
    "Close",
    "Finish",
    "Event",
    "Started",
    "Spawned",
    "Finished",
    "Appended",
    "Scored",
    "Ranked",
    "Candidates",
    "Failed",
    "LogicalNode",
    "LogicalTree",
    "NodeState",
    "TreeView",
]

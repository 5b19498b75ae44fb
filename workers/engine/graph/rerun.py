"""Running a network again after some of its tensors changed: from there on alone."""

from collections.abc import Collection
from typing import Any

from torch.fx import Interpreter, Node

from workers.engine.graph.network import Network


class Rerun:
    """A network that remembers what it computed of each batch.

    Called with a batch's inputs it computes the whole the first time, later only what depends on the tensors
    that `changed` names. It remembers as many batches as it is told to, by the identity of their first input,
    which the caller keeps.
    """

    def __init__(self, network: Network, remembered: int) -> None:
        self._module = network.module
        self._remembered = remembered
        self._known: dict[int, dict[Node, Any]] = {}
        self._changed: Collection[Node] = ()

    def changed(self, paths: Collection[str]) -> None:
        """Say which tensors differ from now on from what was remembered, by path."""
        reads = [node for node in self._module.graph.find_nodes(op="get_attr") if str(node.target) in paths]
        stale = dict.fromkeys(reads)
        for node in self._module.graph.nodes:
            if any(source in stale for source in node.all_input_nodes):
                stale[node] = None
        self._changed = stale.keys()

    def __call__(self, *inputs: Any) -> Any:
        """The network's outputs."""
        known = self._known.get(id(inputs[0]))
        if known is not None:
            changed = {*self._changed, self._module.graph.output_node()}
            fresh = {node: value for node, value in known.items() if node not in changed}
            return Interpreter(self._module).run(*inputs, initial_env=fresh)
        keeps = len(self._known) < self._remembered and not self._changed
        run = Interpreter(self._module, garbage_collect_values=not keeps)
        outputs = run.run(*inputs)
        if keeps:
            self._known[id(inputs[0])] = run.env
        return outputs

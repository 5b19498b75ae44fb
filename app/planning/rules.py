"""What the user fixed about single layers, and the decisions that this leaves no choice about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from app.contract.spec import JobSpec, LayerRule, Method
from app.planning.layers import Form, Layer, Rank, saves


@dataclass(frozen=True)
class Decision:
    """What happens to one layer: the form it takes, or None and the reason it stays dense."""

    layer: Layer
    form: Form | None
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """What the user fixed: the methods allowed, and by layer name which stay dense, which have a method of
    their own whatever `methods` says, and which have a rank (one number stands for every mode)."""

    methods: frozenset[str]
    kept: frozenset[str] = frozenset()
    method: Mapping[str, str] = field(default_factory=dict)
    rank: Mapping[str, Rank] = field(default_factory=dict)

    def allowed(self, layer: Layer) -> list[str]:
        """The methods that the layer may take under these rules."""
        wanted = {self.method[layer.name]} if layer.name in self.method else self.methods
        return [method for method in layer.methods if method in wanted]


def rules_of(spec: JobSpec, layers: Sequence[Layer]) -> Rules:
    """What the job's words fix about these layers: the first rule that matches a name decides."""
    matched = {layer.name: rule for layer in layers if (rule := _rule(spec.layers, layer.name))}
    return Rules(
        methods=frozenset(str(method) for method in spec.methods),
        kept=frozenset(name for name, rule in matched.items() if rule.method is Method.KEEP),
        method={
            name: rule.method.value
            for name, rule in matched.items()
            if rule.method not in (None, Method.KEEP)
        },
        rank={name: _rank(rule.rank) for name, rule in matched.items() if rule.rank is not None},
    )


def settle(layer: Layer, rules: Rules) -> Decision | None:
    """The decision that the layer itself or the user's rules leave no choice about."""
    if not layer.methods:
        return Decision(layer, None, layer.reason or "it has no cheaper form")
    if layer.name in rules.kept:
        return Decision(layer, None, "a layer rule keeps it dense")
    if not rules.allowed(layer):
        able = " and ".join(layer.methods)
        return Decision(layer, None, f"none of the methods asked for fits it: it takes {able}")
    if layer.name in rules.rank:
        return decision(layer, at_rank(layer, rules))
    return None


def at_rank(layer: Layer, rules: Rules) -> Form | None:
    """The form at the user's rank with the least error; None where none is cheaper than dense."""
    wanted = rules.rank[layer.name]
    forms = []
    for factorization in (layer.methods[method] for method in rules.allowed(layer)):
        rank = wanted * len(factorization.max_rank) if len(wanted) == 1 else wanted
        if factorization.fits(rank) and saves(layer, form := factorization.form(rank)):
            forms.append(form)
    return min(forms, key=lambda form: form.error, default=None)


def decision(layer: Layer, form: Form | None) -> Decision:
    """Of a layer that there was a choice about."""
    return Decision(layer, form, None if form else "no cheaper form is worth what it would lose")


def _rule(rules: Sequence[LayerRule], name: str) -> LayerRule | None:
    return next((rule for rule in rules if fnmatchcase(name, rule.match)), None)


def _rank(rank: int | list[int]) -> Rank:
    return (rank,) if isinstance(rank, int) else tuple(rank)

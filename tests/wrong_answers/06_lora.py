"""Answers to lesson 06 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import copy
import math
import re
import statistics

import torch
from torch import nn

from ptlearn.finetuning.parameter_efficient import freeze
from ptlearn.finetuning.wrappers import is_transposed, layer_shape, matching_layers

# 6.1


def path_by(rule):
    """An answer from B A x, alpha and the rank."""

    def answer(x, A, B, alpha):
        return rule(x @ A.T @ B.T, alpha, len(A))

    return answer


def swapped_factors(x, A, B, alpha):
    return alpha / len(A) * x @ B @ A


def one_product(x, A, B, alpha):
    return nn.functional.linear(x, (alpha / B.shape[1]) * (B @ A))


def by_einsum(x, A, B, alpha):
    return torch.einsum("ntk,rk,dr->ntd", x, A, B) * alpha / A.size(0)


# 6.2


def start_by(draw_A, draw_B):
    def answer(rank, k, d):
        return draw_A(rank, k), draw_B(d, rank)

    return answer


def start_swapped(rank, k, d):
    return torch.zeros(d, rank), torch.randn(rank, k)


def start_turned(rank, k, d):
    return torch.randn(k, rank), torch.zeros(rank, d)


def start_square(rank, k, d):
    return torch.randn(rank, rank), torch.zeros(d, rank)


def half_each(rank, k, d):
    """B A is zero though neither factor is, and each of the r ranks has something to start from."""
    first = (torch.arange(rank) < rank / 2).float()
    return torch.randn(rank, k) * first[:, None], torch.randn(d, rank) * (1 - first)


def as_linear_layers(rank, k, d):
    down, up = nn.Linear(k, rank, bias=False), nn.Linear(rank, d, bias=False)
    nn.init.zeros_(up.weight)
    return down.weight, up.weight


# 6.3


def layer(forward=None, *, factors=None, base=lambda base: base.requires_grad_(False), parameter=nn.Parameter):
    """A class from its parts: what is done with the base, how A and B start, the forward pass."""

    class Layer(nn.Module):
        def __init__(self, given, rank, alpha):
            super().__init__()
            self.base, self.alpha = base(given), alpha
            d, k = given.weight.shape
            A, B = factors(rank, k, d, given) if factors else (torch.randn(rank, k), torch.zeros(d, rank))
            self.A, self.B = parameter(A), parameter(B)

        def forward(self, x):
            return (forward or usual)(self, x)

    return Layer


def usual(self, x):
    return self.base(x) + self.alpha / len(self.A) * x @ self.A.to(x.dtype).T @ self.B.to(x.dtype).T


def path_of(self, x):
    return usual(self, x) - self.base(x)


class TwoLinears(nn.Module):
    """The factors as layers of torch, reached by the names that the lesson reads."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        for parameter in base.parameters():
            parameter.requires_grad = False
        d, k = layer_shape(base)
        self.base, self.alpha, self.rank = base, alpha, rank
        self.down, self.up = nn.Linear(k, rank, bias=False), nn.Linear(rank, d, bias=False)
        nn.init.zeros_(self.up.weight)

    A = property(lambda self: self.down.weight)
    B = property(lambda self: self.up.weight)

    def forward(self, x):
        y = self.base(x)
        return y + (self.up(self.down(x.float())) * (self.alpha / self.rank)).to(y.dtype)


class Buffered(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        d, k = base.weight.shape
        self.base, self.alpha = base.requires_grad_(False), alpha
        self.A, self.B = torch.randn(rank, k, requires_grad=True), torch.zeros(d, rank, requires_grad=True)

    forward = usual


class Early(nn.Module):
    """The product is computed once, when the layer is made."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        d, k = base.weight.shape
        self.base, self.alpha = base.requires_grad_(False), alpha
        self.A, self.B = nn.Parameter(torch.randn(rank, k)), nn.Parameter(torch.zeros(d, rank))
        self.change = (alpha / rank * self.B @ self.A).detach()

    def forward(self, x):
        return self.base(x) + x @ self.change.T + 0 * (self.A.sum() + self.B.sum())


class OtherNames(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        self.down = nn.Parameter(torch.randn(rank, base.weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(base.weight.shape[0], rank))


def weight_frozen(base):
    base.weight.requires_grad = False
    return base


def as_the_base(rank, k, d, given):
    return torch.randn(rank, k, dtype=given.weight.dtype), torch.zeros(d, rank, dtype=given.weight.dtype)


# 6.4


def named(model):
    return dict(model.named_modules())


def putting(match, *, before=freeze, after=lambda model: model, names=named, least=1):
    """An answer from how a name is matched, and what is frozen when."""

    def answer(model, pattern, wrap):
        before(model)
        found = [name for name in names(model) if match(pattern, name)]
        if len(found) < least:
            raise ValueError(f"pattern={pattern!r} matches nothing")
        for name in found:
            model.set_submodule(name, wrap(model.get_submodule(name)))
        return after(model)

    return answer


def whole(pattern, name):
    return re.fullmatch(pattern, name.rpartition(".")[2])


def some_end(pattern, name):
    return re.search(f"({pattern})$", name)


def first_only(model, pattern, wrap):
    freeze(model)
    for name, module in list(model.named_modules()):
        if whole(pattern, name):
            model.set_submodule(name, wrap(module))
            return model
    raise ValueError(pattern)


def into_nothing(model, pattern, wrap):
    freeze(model)
    if not [wrap(module) for name, module in model.named_modules() if whole(pattern, name)]:
        raise ValueError(pattern)
    return model


def by_setattr(model, pattern, wrap):
    freeze(model)
    found = [name for name, _ in model.named_modules() if whole(pattern, name)]
    if not found:
        raise ValueError(pattern)
    for name in found:
        setattr(model, name, wrap(model.get_submodule(name)))
    return model


def copies(model, pattern, wrap):
    return putting(whole)(model, pattern, lambda module: wrap(copy.deepcopy(module)))


def returns_nothing(model, pattern, wrap):
    putting(whole)(model, pattern, wrap)


def silent_error(model, pattern, wrap):
    try:
        return putting(whole)(model, pattern, wrap)
    except ValueError as reason:
        raise ValueError("nothing found") from reason


def key_error(model, pattern, wrap):
    try:
        return putting(whole)(model, pattern, wrap)
    except ValueError as reason:
        raise KeyError(pattern) from reason


def recursive(model, pattern, wrap, depth=0):
    """Goes down by itself, children first, and replaces by setattr on the parent."""
    if not depth:
        model.requires_grad_(False)
    found = 0
    for name, child in list(model.named_children()):
        if re.fullmatch(pattern, name):
            setattr(model, name, wrap(child))
            found += 1
        else:
            found += recursive(child, pattern, wrap, depth + 1)
    if depth:
        return found
    if not found:
        raise ValueError(f"{pattern} matches no layer of the model")
    return model


def by_the_package(model, pattern, wrap):
    freeze(model)
    for name, module in matching_layers(model, pattern).items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, wrap(module))
    return model


# 6.5


def rate_by(score, inside=lambda place, last: 0 < place < last, choose=min):
    """An answer from how the losses of a rate are made into one."""

    def answer(rates, losses):
        scores = [score(row) for row in losses]
        place = scores.index(choose(scores))
        return rates[place], inside(place, len(rates) - 1)

    return answer


def mean_or_infinite(row):
    return statistics.mean(row) if all(map(math.isfinite, row)) else math.inf


def finite(row):
    return [value for value in row if math.isfinite(value)]


def nan_first(rates, losses):
    means = [sum(row) / len(row) for row in losses]
    place = int(torch.tensor(means).argmin())
    return rates[place], 0 < place < len(rates) - 1


def with_torch(rates, losses):
    means = torch.tensor(losses).nan_to_num(math.inf).mean(1)
    place = int(means.argmin())
    return rates[place], place not in (0, len(rates) - 1)


def by_sorting(rates, losses):
    order = sorted(zip(map(mean_or_infinite, losses), rates))
    return order[0][1], min(rates) < order[0][1] < max(rates)


# 6.6


class Layer(layer()):
    """What the answers below inherit, as a student's own class of 6.3."""


def change_of(self, scale=None, turn=is_transposed):
    change = (self.alpha / len(self.A) if scale is None else scale(self)) * (self.B @ self.A).detach()
    return change.T if turn(self.base) else change


def merging(*, change=change_of, put=None, back=None, forward=None, guard=True):
    """A class from its parts: the change, how the weight is put in place and back, the forward pass when merged."""

    class Merging(Layer):
        own = None

        def merge(self):
            if guard and self.own is not None:
                return
            self.own = self.base.weight.detach() if put is None else self.base.weight.detach().clone()
            merged = (self.base.weight.detach() + change(self)).to(self.own.dtype)
            (put or replaced)(self, merged)

        def unmerge(self):
            if self.own is not None:
                (back or (lambda self: replaced(self, self.own)))(self)
                self.own = None

        def forward(self, x):
            return super().forward(x) if self.own is None else (forward or (lambda self, x: self.base(x)))(self, x)

    return Merging


def replaced(self, weight):
    self.base.weight = nn.Parameter(weight, requires_grad=False)


def in_place(self, weight):
    self.base.weight.data.copy_(weight)


def subtracted(self):
    replaced(self, (self.base.weight - change_of(self)).to(self.own.dtype))


def scaled(rule):
    return merging(change=lambda self: change_of(self, rule))


class Unguarded(merging()):
    def unmerge(self):
        replaced(self, (self.base.weight - change_of(self)).to(self.base.weight.dtype))
        self.own = None


class Zeroing(merging()):
    """Forgets the factors after merging."""

    def merge(self):
        if self.own is None:
            super().merge()
            self.B.data.zero_()


class KeepsTheParameter(merging()):
    def merge(self):
        self.own = self.base.weight
        replaced(self, self.own + change_of(self))


class AlwaysBack(merging()):
    def unmerge(self):
        self.base.weight, self.own = nn.Parameter(self.own, requires_grad=False), None


class Lazy(Layer):
    """Never merges at all."""

    def merge(self):
        pass

    def unmerge(self):
        pass


class OldParameter(Layer):
    """Keeps the very parameter in a list, and swaps the forward pass, as the package does."""

    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.kept = []

    def merge(self):
        if not self.kept:
            weight = self.base.weight
            self.kept.append(weight)
            replaced(self, (weight.float() + change_of(self)).to(weight.dtype).detach())
            self.forward = self.base.forward

    def unmerge(self):
        if self.kept:
            self.base.weight = self.kept.pop()
            del self.forward


class Merged(Layer):
    """With a flag, and the change recomputed; the old weight is cloned."""

    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.merged = False

    @torch.no_grad()
    def merge(self):
        if self.merged:
            return
        self.register_buffer("backup", self.base.weight.clone(), persistent=False)
        self.base.weight = nn.Parameter((self.backup + change_of(self)).type_as(self.backup), requires_grad=False)
        self.merged = True

    @torch.no_grad()
    def unmerge(self):
        if not self.merged:
            return
        self.base.weight = nn.Parameter(self.backup.clone(), requires_grad=False)
        del self.backup
        self.merged = False

    def forward(self, x):
        if self.merged:
            return self.base(x)
        return super().forward(x)


# 6.7


def switching(*, holder=nn.ModuleDict, new=lambda base: base, forward=None, switch=None, add=None):
    """A class from its parts."""

    class Switching(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.adapters, self.active = base.requires_grad_(False), holder(), None

        def add(self, name, rank, alpha):
            if add is not None:
                return add(self, name, rank, alpha)
            self.switch(None)
            self.adapters[name] = merging()(new(self.base), rank, alpha)
            self.switch(name)

        def switch(self, name):
            (switch or switch_by())(self, name)

        def forward(self, x):
            return (forward or used)(self, x)

    return Switching


def used(self, x):
    return self.base(x) if self.active is None else self.adapters[self.active](x)


def switch_by(*, look=True, error=ValueError, words="no adapter {!r}", unmerge=True, train=True, late=False):
    """A `switch` from what it does not forget."""

    def switch(self, name):
        old = self.active
        if late:
            self.active = name
        if look and name is not None and name not in self.adapters:
            raise error(words.format(name))
        if unmerge and old is not None:
            self.adapters[old].unmerge()
        self.active = name
        for other, adapter in self.adapters.items() if train else ():
            adapter.A.requires_grad_(other == name)
            adapter.B.requires_grad_(other == name)

    return switch


def all_at_once(self, x):
    return self.base(x) + sum(adapter(x) - self.base(x) for adapter in self.adapters.values())


def add_alone(self, name, rank, alpha):
    self.adapters[name] = merging()(self.base, rank, alpha)


def add_unscaled(self, name, rank, alpha):
    self.switch(None)
    self.adapters[name] = merging()(self.base, rank, 1.0)
    self.switch(name)


def add_merged(self, name, rank, alpha):
    self.adapters[name] = merging()(self.base, rank, alpha)
    self.active = name
    for other, adapter in self.adapters.items():
        adapter.A.requires_grad_(other == name)
        adapter.B.requires_grad_(other == name)


class Pairs(nn.Module):
    """Written the other way round: one switch for everything, the old adapter left first."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active = None
        base.requires_grad_(False)

    def add(self, name, rank, alpha):
        if self.active is not None:
            self.adapters[self.active].unmerge()
        self.adapters.update({name: Merged(self.base, rank, alpha)})
        self.switch(name)

    def switch(self, name):
        if name not in [None, *self.adapters.keys()]:
            raise ValueError(f"{name} is unknown; there are {list(self.adapters.keys())}")
        for adapter in self.adapters.values():
            adapter.unmerge()
            adapter.A.requires_grad = adapter.B.requires_grad = False
        if name is not None:
            adapter = self.adapters[name]
            adapter.A.requires_grad = adapter.B.requires_grad = True
        self.active = name

    def forward(self, x):
        if self.active is None:
            return self.base(x)
        return self.adapters[self.active](x)


# 6.8


def cut_by(rule):
    """An answer from the parts of the singular value decomposition."""

    def answer(matrix, rank):
        return rule(*torch.linalg.svd(matrix, full_matrices=False), rank)

    return answer


def block(matrix, rank):
    cut = torch.zeros_like(matrix)
    cut[:rank, :rank] = matrix[:rank, :rank]
    return cut


def by_outer_products(matrix, rank):
    U, S, Vh = torch.linalg.svd(matrix)
    return sum(S[i] * torch.outer(U[:, i], Vh[i]) for i in range(rank))


def by_projection(matrix, rank):
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    largest = vectors[:, values.argsort(descending=True)[:rank]]
    return largest @ largest.T @ matrix


# 6.9


def tests(*names, also=lambda layer: True):
    """A test of a layer that looks at some properties alone."""

    def answer(run):
        base, x = nn.Linear(6, 5), torch.randn(7, 6)
        own, before = base.weight.detach().clone(), base(x)
        layer = run(base, 3, 12.0)
        seen = {"start": torch.equal(layer(x), before)}
        layer.B.data.normal_()
        apart = layer(x)
        seen["alpha"] = torch.allclose(apart, before + 4.0 * x @ layer.A.T @ layer.B.T, atol=1e-3)
        seen["base"] = [name for name, p in layer.named_parameters() if p.requires_grad] == ["A", "B"]
        apart.sum().backward()
        seen["A"] = layer.A.grad is not None
        layer.merge()
        seen["merge"] = torch.allclose(layer(x), apart, atol=1e-3)
        layer.unmerge()
        seen["restored"] = torch.equal(base.weight, own)
        return all(seen[name] for name in names) and also(layer)

    return answer


def raising(run):
    for name in ("start", "alpha", "base", "A", "merge", "restored"):
        assert tests(name)(run), name
    return True


WRONG = {
    "6.1": [
        (path_by(lambda path, alpha, r: alpha * path), "alpha is not divided"),
        (path_by(lambda path, alpha, r: path / r), "as if alpha were 1"),
        (path_by(lambda path, alpha, r: path), "is not scaled"),
        (path_by(lambda path, alpha, r: alpha // r * path), "drops what is left over"),
        (path_by(lambda path, alpha, r: r / alpha * path), "scale is turned"),
        (path_by(lambda path, alpha, r: -alpha / r * path), "wrong sign"),
        (swapped_factors, "A and B are swapped"),
        (lambda x, A, B, alpha: x + alpha / len(A) * x @ A.T @ B.T, "x is added"),
        (lambda x, A, B, alpha: alpha / len(B) * x @ A.T @ B.T, "divided by the width"),
        (lambda x, A, B, alpha: alpha / len(x) * x @ A.T @ B.T, "divided by a size of x"),
        (path_by(lambda path, alpha, r: alpha * r * path), "multiplied by the rank"),
        (path_by(lambda path, alpha, r: alpha / r**0.5 * path), "root of the rank"),
        (path_by(lambda path, alpha, r: (alpha / r) ** 2 * path), "applied twice"),
        (path_by(lambda path, alpha, r: (alpha / r * path).detach()), "no gradient reaches"),
        (path_by(lambda path, alpha, r: (alpha / r * path).tolist()), "only a tensor carries"),
    ],
    "6.2": [
        (start_by(torch.zeros, torch.zeros), "both are zero"),
        (start_by(torch.randn, torch.randn), "B A is not zero"),
        (start_swapped, "A and B are swapped"),
        (start_turned, "both factors are transposed"),
        (start_square, "A and B have shapes"),
        (start_by(torch.ones, torch.zeros), "are alike"),
        (start_by(lambda *shape: 1e6 * torch.randn(*shape), torch.zeros), "huge or undefined"),
        (start_by(lambda *shape: torch.full(shape, torch.nan), torch.zeros), "huge or undefined"),
        (start_by(torch.randn, lambda *shape: 1e-6 * torch.randn(*shape)), "B A is not zero"),
        (start_by(lambda r, k: torch.randn(k, r), torch.zeros), "A is transposed"),
        (start_by(torch.randn, lambda d, r: torch.zeros(r, d)), "B is transposed"),
        (lambda rank, k, d: torch.randn(rank, k), "expected a tuple"),
        (lambda rank, k, d: {"A": torch.randn(rank, k), "B": torch.zeros(d, rank)}, "is a dict"),
        (start_by(lambda *shape: torch.randn(*shape).tolist(), torch.zeros), "is a list"),
    ],
    "6.3": [
        (OtherNames, "the layer lacks A, B"),
        (layer(base=lambda base: copy.deepcopy(base).requires_grad_(False)), "not the layer that was given"),
        (Buffered, "no parameters of the layer"),
        (layer(base=lambda base: base), "the base is still trained"),
        (layer(base=weight_frozen), "its bias too"),
        (layer(parameter=lambda factor: nn.Parameter(factor, requires_grad=False)), "A or B is frozen"),
        (layer(factors=lambda rank, k, d, given: (torch.randn(k, rank), torch.zeros(rank, d))), "are not (rank, k)"),
        (layer(factors=lambda rank, k, d, given: (torch.randn(rank, k), torch.randn(d, rank))), "B A is not 0"),
        (Early, "does not follow A and B"),
        (layer(path_of), "the path alone"),
        (layer(lambda self, x: self.base(x) + self.alpha * x @ self.A.T @ self.B.T), "alpha is not divided"),
        (layer(lambda self, x: self.base(x) + x @ self.A.T @ self.B.T), "not scaled"),
        (layer(lambda self, x: self.base(x) + self.alpha / len(self.A) * path_of(self, x)), "scale is applied twice"),
        (layer(lambda self, x: self.base(x) - path_of(self, x)), "subtracted"),
        (layer(lambda self, x: x @ self.base.weight.T + path_of(self, x)), "the bias of the base is missing"),
        (layer(lambda self, x: 2 * self.base(x) + path_of(self, x)), "the output is not self.base(x)"),
        (layer(lambda self, x: self.base(x) + self.alpha / len(self.A) * x @ self.A.detach().T @ self.B.T),
         "no gradient reaches A"),
        (layer(factors=lambda rank, k, d, given: (torch.zeros(rank, k), torch.zeros(d, rank))), "both zero"),
        (layer(lambda self, x: self.base(x)), "no gradient reaches A"),
        (layer(torch.no_grad()(usual)), "no gradient reaches A"),
        (layer(lambda self, x: self.base(x) + path_of(self, x) / len(self.A)), "by the rank twice"),
        (layer(lambda self, x: self.base(x) + path_of(self, x) * len(self.A) / len(self.B)), "divided by the outputs"),
        (layer(factors=as_the_base), "keep float32"),
        (layer(lambda self, x: self.base(x) + self.alpha / len(self.A) * x.float() @ self.A.T @ self.B.T),
         "does not give bfloat16"),
        (layer(lambda self, x: self.base(x) + self.alpha / len(self.A) * (x.T.T @ self.A.T) @ self.B.T if x.dim() == 2
               else self.base(x)), "gives another result than its rows"),
    ],
    "6.4": [
        (putting(some_end), "has to match as a whole"),
        (putting(lambda pattern, name: re.match(pattern, name.rpartition(".")[2])), "has to match as a whole"),
        (putting(whole, before=lambda model: model), "is trained: freeze the whole model"),
        (putting(whole, before=lambda model: model, after=freeze), "nothing is trained"),
        (putting(whole, least=0), "raises no ValueError"),
        (putting(whole, names=lambda model: dict(model.named_children())), "is left out"),
        (putting(lambda pattern, name: re.fullmatch(rf".*\.({pattern})", name)), "a layer without a dot"),
        (first_only, "is not wrapped once"),
        (into_nothing, "no layer of the model is replaced"),
        (by_setattr, "is not wrapped once"),
        (copies, "than the model's own layers"),
        (returns_nothing, "does not come back"),
        (silent_error, "does not name the pattern"),
        (key_error, "raises a KeyError"),
        (putting(lambda pattern, name: pattern == name.rpartition(".")[2]), "though 'blocks.0.q_proj' matches"),
    ],
    "6.5": [
        (rate_by(mean_or_infinite, choose=max), "highest loss"),
        (rate_by(lambda row: min(finite(row))), "best single run"),
        (rate_by(lambda row: row[0] if math.isfinite(row[0]) else math.inf), "only the first seed"),
        (rate_by(lambda row: row[-1] if math.isfinite(row[-1]) else math.inf), "only the last seed"),
        (rate_by(lambda row: sorted(v if math.isfinite(v) else math.inf for v in row)[1]), "the median decides"),
        (rate_by(lambda row: max(row) if all(map(math.isfinite, row)) else math.inf), "the worst run decides"),
        (rate_by(lambda row: statistics.mean(finite(row))), "is left out of the mean"),
        (nan_first, "that is nan wins"),
        (rate_by(mean_or_infinite, lambda place, last: place > 0), "no larger neighbour"),
        (rate_by(mean_or_infinite, lambda place, last: place < last), "first rate has no smaller"),
        (rate_by(mean_or_infinite, lambda place, last: not 0 < place < last), "it is turned"),
        (rate_by(mean_or_infinite, lambda place, last: True), "always True"),
        (lambda rates, losses: (min(map(mean_or_infinite, losses)), True), "the mean loss, not the rate"),
        (lambda rates, losses: ([*map(mean_or_infinite, losses)].index(min(map(mean_or_infinite, losses))), True),
         "the place in the list"),
    ],
    "6.6": [
        (Lazy, "as it is"),
        (scaled(lambda self: 1), "scale is missing"),
        (scaled(lambda self: self.alpha), "alpha is not divided"),
        (scaled(lambda self: -self.alpha / len(self.A)), "is subtracted"),
        (merging(change=lambda self: change_of(self, turn=lambda base: False)), "a Conv1D stores"),
        (merging(change=lambda self: change_of(self, turn=lambda base: base.weight.shape[0] == base.weight.shape[1])),
         "only a Conv1D"),
        (merging(forward=lambda self, x: usual(self, x)), "counts twice"),
        (merging(put=in_place), "changed in place"),
        (merging(back=subtracted), "only up to rounding"),
        (merging(back=lambda self: None), "the weight is not W0"),
        (merging(guard=False), "a second time"),
        (Unguarded, "nothing to do there"),
        (Zeroing, "changed A or B"),
        (KeepsTheParameter, "keep base.weight.detach()"),
        (AlwaysBack, "or fails"),
        (merging(back=lambda self: setattr(self.base, "weight", nn.Parameter(self.own))), "W0 is trained"),
        (merging(put=lambda self, weight: setattr(self.base, "weight", nn.Parameter(weight))), "requires_grad=False"),
        (merging(put=lambda self, weight: replaced(self, weight.float())), "another precision"),
        (merging(put=lambda self, weight: replaced(self, change_of(self).to(weight.dtype))), "the change alone"),
        (merging(forward=lambda self, x: self.base(x) + 0 * (self.B.sum() - self.B.sum())), "one product"),
    ],
    "6.7": [
        (switching(holder=dict), "no nn.ModuleDict"),
        (switching(new=copy.deepcopy), "a base of its own"),
        (switching(forward=all_at_once), "and alone"),
        (switching(add=add_alone), "does not switch"),
        (switching(add=add_unscaled), "hand rank and alpha on"),
        (switching(add=add_merged), "when a new one is added"),
        (switching(switch=switch_by(look=False)), "raise a ValueError"),
        (switching(switch=switch_by(error=KeyError)), "raise a ValueError"),
        (switching(switch=switch_by(words="unknown adapter")), "which name was given"),
        (switching(switch=switch_by(unmerge=False)), "after a switch to another"),
        (switching(switch=switch_by(train=False)), "those of the others frozen"),
        (switching(switch=switch_by(late=True)), "look at the name first"),
        (switching(forward=lambda self, x: self.base(x)), "does not switch to the new"),
        (switching(forward=lambda self, x: self.base(x) + used(self, x)), "without an adapter"),
    ],
    "6.8": [
        (cut_by(lambda U, S, Vh, r: U[:, -r:] * S[-r:] @ Vh[-r:]), "the smallest singular values"),
        (cut_by(lambda U, S, Vh, r: U[:, r:] * S[r:] @ Vh[r:]), "what is left over"),
        (cut_by(lambda U, S, Vh, r: U[:, :r] @ Vh[:r]), "singular values are missing"),
        (cut_by(lambda U, S, Vh, r: U[:, :r] * S[:r] ** 2 @ Vh[:r]), "are squared"),
        (cut_by(lambda U, S, Vh, r: U[:, : r + 1] * S[: r + 1] @ Vh[: r + 1]), "one singular value too many"),
        (cut_by(lambda U, S, Vh, r: U[:, : r - 1] * S[: r - 1] @ Vh[: r - 1]), "one singular value too few"),
        (cut_by(lambda U, S, Vh, r: U * S @ Vh), "nothing is cut"),
        (block, "rows and columns of the matrix"),
        (cut_by(lambda U, S, Vh, r: (U[:, :r], S[:r], Vh[:r])), "is a tuple"),
    ],
    "6.9": [
        (lambda run: True, "not 0; a wrong run gets through"),
        (tests("start"), "not 1; a wrong run gets through"),
        (lambda run: not run(nn.Linear(3, 3), 2, 4.0).merge(), "0 of 4 points"),
        (lambda run: run(nn.Linear(3, 3)) is not None, "TypeError"),
        (tests(also=lambda layer: bool(layer.A.eq(0).all())), "refuses the right run"),
    ],
}  # fmt: skip
RIGHT = {
    "6.1": [one_product, by_einsum],
    "6.2": [as_linear_layers, half_each, start_by(torch.zeros, torch.randn), start_by(torch.randn, torch.zeros)],
    "6.3": [layer(), TwoLinears],
    "6.4": [recursive, by_the_package, putting(whole)],
    "6.5": [with_torch, by_sorting, rate_by(mean_or_infinite)],
    "6.6": [OldParameter, Merged, merging()],
    "6.7": [Pairs, switching()],
    "6.8": [by_outer_products, by_projection],
    "6.9": [tests("start", "alpha", "base", "A", "merge", "restored"), raising],
}

"""Answers to lesson 05 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import copy
import fnmatch
import re

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

# 5.1 One formula -----------------------------------------------------------------------------------------------------


def everything_trained(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, parameters * bytes_per_number, moments * parameters * bytes_per_number


def states_for_all(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, moments * parameters * bytes_per_number


def gradients_for_all(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, parameters * bytes_per_number, moments * trained * bytes_per_number


def trained_weights_alone(parameters, trained, bytes_per_number, moments=2):
    return trained * bytes_per_number, trained * bytes_per_number, moments * trained * bytes_per_number


def one_moment(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, trained * bytes_per_number


def two_moments(parameters, trained, bytes_per_number, moments=2):
    return parameters * bytes_per_number, trained * bytes_per_number, 2 * trained * bytes_per_number


def numbers_alone(parameters, trained, bytes_per_number, moments=2):
    return parameters, trained, moments * trained


def four_bytes(parameters, trained, bytes_per_number, moments=2):
    return 4 * parameters, 4 * trained, 4 * moments * trained


def right_bytes(parameters, trained, bytes_per_number, moments=2):
    return [bytes_per_number * count for count in (parameters, trained, trained * moments)]


def counted_in_a_list(parameters, trained, bytes_per_number, moments=2):
    counts = [parameters, trained] + [0]
    for _ in range(moments):
        counts[2] += trained
    return [count * bytes_per_number for count in counts]


# 5.2 Hooks -----------------------------------------------------------------------------------------------------------


def same(tensor):
    return tensor


def collecting(keep=same, back=same, unpack=same, keeps=lambda tensor: True):
    """The right answer, but for what is kept, what `pack` returns, what `unpack` returns, or which are kept."""

    def answer(forward):
        saved = []

        def pack(tensor):
            if keeps(tensor):
                saved.append(keep(tensor))
            return back(tensor)

        with saved_tensors_hooks(pack, unpack):
            return forward(), saved

    return answer


def collected_on_the_way_back(forward):
    saved = []

    def unpack(tensor):
        saved.append(tensor)
        return tensor

    with saved_tensors_hooks(same, unpack):
        return forward(), saved


def outside_the_with(forward):
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, same):
        pass
    return forward(), saved


def twice(forward):
    loss = forward()
    return loss, collecting()(forward)[1]


def with_backward(forward):
    loss, saved = collecting()(forward)
    loss.backward()
    return loss, saved


def without_gradients(forward):
    with torch.no_grad():
        return collecting()(forward)


def sizes_alone(forward):
    loss, saved = collecting()(forward)
    return loss, [tensor.shape for tensor in saved]


def never_called(forward):
    return torch.tensor(0.0), []


class Collector:
    def __init__(self):
        self.saved = []

    def pack(self, tensor):
        self.saved.append(tensor)
        return len(self.saved) - 1

    def unpack(self, place):
        return self.saved[place]


def by_number(forward):
    collector = Collector()
    hooks = saved_tensors_hooks(collector.pack, collector.unpack)
    with hooks:
        loss = forward()
    return loss, collector.saved


def in_one_line(forward):
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        return forward(), saved


# 5.3 Storages --------------------------------------------------------------------------------------------------------


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


def summed(key=storage, size=lambda tensor: tensor.untyped_storage().nbytes(), own_too=False):
    """The right answer, but for what tells tensors apart, or what is added up."""

    def answer(tensors, own=()):
        known = set() if own_too else {key(tensor) for tensor in own}
        return sum({key(tensor): size(tensor) for tensor in tensors if key(tensor) not in known}.values())

    return answer


def own_by_identity(tensors, own=()):
    known = {(tensor.data_ptr(), tensor.shape) for tensor in own}
    sizes = {storage(x): x.untyped_storage().nbytes() for x in tensors if (x.data_ptr(), x.shape) not in known}
    return sum(sizes.values())


def own_subtracted(tensors, own=()):
    return summed(own_too=True)(tensors) - summed(own_too=True)(own)


def sizes_in_a_set(tensors, own=()):
    known = {storage(tensor) for tensor in own}
    return sum({x.untyped_storage().nbytes() for x in tensors if storage(x) not in known})


def every_tensor(tensors, own=()):
    known = {storage(tensor) for tensor in own}
    return sum(tensor.nbytes for tensor in tensors if storage(tensor) not in known)


def every_storage(tensors, own=()):
    known = {storage(tensor) for tensor in own}
    return sum(x.untyped_storage().nbytes() for x in tensors if storage(x) not in known)


def in_a_loop(tensors, own=()):
    seen, total = [x.untyped_storage()._cdata for x in own], 0
    for tensor in tensors:
        if tensor.untyped_storage()._cdata not in seen:
            seen.append(tensor.untyped_storage()._cdata)
            total += len(tensor.untyped_storage())
    return total


def with_sets(tensors, own=()):
    pairs = {(storage(x), x.untyped_storage().nbytes()) for x in tensors}
    return sum(size for _, size in pairs - {(storage(x), x.untyped_storage().nbytes()) for x in own})


# 5.4 A step ----------------------------------------------------------------------------------------------------------


def step(weights=lambda model: model.parameters(), size=lambda tensor: tensor.nbytes, make=torch.optim.AdamW,
         gradients=None, moments=("step", "exp_avg", "exp_avg_sq"), stepped=True, cleared=False):  # fmt: skip
    """The right answer, but for what is counted as weights, by which size, with which optimizer, or when."""

    def answer(model, loss):
        optimizer = make(model.parameters())
        loss.backward()
        if stepped:
            optimizer.step()
        if cleared:
            optimizer.zero_grad()
        graded = [p for p in model.parameters() if p.grad is not None] if gradients is None else gradients(model)
        states = [state[name] for state in optimizer.state.values() for name in moments if name in state]
        return sum(map(size, weights(model))), sum(map(size, graded)), sum(map(size, states))

    return answer


def frozen_and_trained(flag):
    return lambda model: [p for p in model.parameters() if p.requires_grad == flag]


def states_of_all(model, loss):
    weights, gradients, _ = step()(model, loss)
    return weights, gradients, 2 * weights


def by_hand(model, loss):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.0)
    gradients = torch.autograd.grad(loss, trained)
    for parameter, gradient in zip(trained, gradients):
        parameter.grad = gradient
    optimizer.step()
    states = 0
    for state in optimizer.state.values():
        states += state["exp_avg"].nbytes + state["exp_avg_sq"].nbytes
    return [sum(p.numel() * p.element_size() for p in model.parameters()), sum(g.nbytes for g in gradients), states]


# 5.5 Patterns --------------------------------------------------------------------------------------------------------


def refuse(names, patterns, said="{} matches nothing"):
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(said.format(pattern))


def by_flag(flag, checks=refuse):
    """flag(name, patterns, flag before) -> the new flag."""

    def answer(model, patterns):
        named = dict(model.named_parameters())
        checks(list(named), patterns)
        for name, parameter in named.items():
            parameter.requires_grad_(bool(flag(name, patterns, parameter.requires_grad)))
        return model

    return answer


def anywhere(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def one_after_the_other(model, patterns):
    refuse([name for name, _ in model.named_parameters()], patterns)
    for pattern in patterns:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = fnmatch.fnmatch(name, pattern)
    return model


def returns_nothing(model, patterns):
    by_flag(lambda name, patterns, was: anywhere(name, patterns))(model, patterns)


def on_copies(model, patterns):
    refuse([name for name, _ in model.named_parameters()], patterns)
    for parameter in model.state_dict().values():
        parameter.requires_grad_(False)
    return model


def in_two_passes(model, patterns):
    model.requires_grad_(False)
    for pattern in patterns:
        chosen = [p for name, p in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not chosen:
            raise ValueError(f"no parameter is called {pattern}")
        for parameter in chosen:
            parameter.requires_grad = True
    return model


def translated(model, patterns):
    compiled = {pattern: re.compile(fnmatch.translate(pattern)) for pattern in patterns}
    used = set()
    for name, parameter in model.named_parameters():
        found = {pattern for pattern, expression in compiled.items() if expression.match(name)}
        used |= found
        parameter.requires_grad = bool(found)
    if unused := [pattern for pattern in patterns if pattern not in used]:
        raise ValueError(f"{unused} match nothing")
    return model


def as_regular_expression(model, patterns):
    return by_flag(lambda name, patterns, was: any(re.match(p.replace("*", ".*"), name) for p in patterns))(
        model, [pattern.replace(".*", "*") for pattern in patterns]
    )


# 5.6 Blocks ----------------------------------------------------------------------------------------------------------


def number(name):
    return int(name.split(".")[2]) if "layers" in name else -1


def blocks_where(keeps, norm=True):
    """The names that `keeps(name, first, k)` keeps, where first is the right first block."""

    def answer(names, k):
        first = max(number(name) for name in names) + 1 - k
        return [name for name in names if keeps(name, first, k) or (norm and name.startswith("model.norm"))]

    return answer


def blocks_from_to(start, stop, form="model.layers.{}.*"):
    """Patterns of the blocks range(start(count, k), stop(count, k))."""

    def answer(names, k):
        count = 1 + max(map(number, names))
        return [form.format(block) for block in range(start(count, k), stop(count, k))] + ["model.norm.*"]

    return answer


def compared_as_texts(names, k):
    numbers = sorted({name.split(".")[2] for name in names if "layers" in name})[-k:]
    return [f"model.layers.{number}.*" for number in numbers] + ["model.norm.*"]


def by_position(names, k):
    inside = list(dict.fromkeys(".".join(name.split(".")[:3]) + ".*" for name in names if "layers" in name))[-k:]
    return (*inside, "model.norm.weight")


def with_a_set(names, k):
    numbers = sorted({int(found[1]) for found in (re.match(r"model\.layers\.(\d+)", name) for name in names) if found})
    return [f"*.layers.{number}.*" for number in numbers[len(numbers) - k :]] + ["model.norm*"]


# 5.7 An adapter ------------------------------------------------------------------------------------------------------


def zeroed(layer):
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def adapter(bend=functional.gelu, outside=same, around=1.0, sign=1.0, start=zeroed, first=same, biases=(True, True),
            keep=same):  # fmt: skip
    """The right module, but for one part."""

    class Made(nn.Module):
        def __init__(self, base, width, size):
            super().__init__()
            self.base = keep(base)
            self.down = first(nn.Linear(width, size, bias=biases[0]))
            self.up = start(nn.Linear(size, width, bias=biases[1]))

        def forward(self, states):
            y = (self.base[0] if isinstance(self.base, list) else self.base)(states)
            return around * y + sign * outside(self.up(bend(self.down(y))))

    return Made


class ForgetsSuper(nn.Module):
    def __init__(self, base, width, size):
        self.base = base


class MadeInForward(nn.Module):
    def __init__(self, base, width, size):
        super().__init__()
        self.base, self.width, self.size = base, width, size

    def forward(self, states):
        y = self.base(states)
        return y + zeroed(nn.Linear(self.size, self.width))(functional.gelu(nn.Linear(self.width, self.size)(y)))


class OnTheInput(adapter()):
    def forward(self, states):
        return self.base(states) + self.up(functional.gelu(self.down(states)))


class BentFirst(adapter()):
    def forward(self, states):
        y = self.base(states)
        return y + self.up(self.down(functional.gelu(y)))


class WithNorm(adapter()):
    def __init__(self, base, width, size):
        super().__init__(base, width, size)
        self.norm = nn.LayerNorm(width)


class Detached(adapter()):
    def forward(self, states):
        return super().forward(states).detach()


class OneLayer(nn.Module):
    def __init__(self, base, width, size):
        super().__init__()
        self.base, self.down = base, nn.Linear(width, size)

    def forward(self, states):
        return self.base(states)


class InARow(nn.Module):
    def __init__(self, base, width, size):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.path = nn.Sequential(nn.Linear(width, size), nn.GELU(), nn.Linear(size, width))
        with torch.no_grad():
            for parameter in self.path[-1].parameters():
                parameter.mul_(0)

    def forward(self, states):
        return (y := self.base(states)).add(self.path(y))


class OfParameters(nn.Module):
    def __init__(self, base, width, size):
        super().__init__()
        self.layer = base
        self.D, self.d = nn.Parameter(torch.randn(size, width) / width**0.5), nn.Parameter(torch.zeros(size))
        self.U, self.u = nn.Parameter(torch.zeros(width, size)), nn.Parameter(torch.zeros(width))

    def forward(self, states):
        states = self.layer(states)
        return states + functional.gelu(states @ self.D.T + self.d) @ self.U.T + self.u


# 5.8 In place --------------------------------------------------------------------------------------------------------


def placed(freeze=lambda model, places: model.requires_grad_(False), after=lambda model, places: None,
           chosen=lambda model, places: places, shared=False):  # fmt: skip
    """The right answer, but for what is frozen, when, which places are filled, or with how many layers."""

    def answer(model, places, make):
        freeze(model, places)
        one = make(model.get_submodule(places[0])) if shared else None
        for name in chosen(model, places):
            model.set_submodule(name, one or make(model.get_submodule(name)))
        after(model, places)
        return model

    return answer


def only_named(model, places):
    for name in places:
        model.get_submodule(name).requires_grad_(False)


def all_but_named(model, places):
    model.requires_grad_(False)
    for name in places:
        model.get_submodule(name).requires_grad_(True)


def nothing(model, places):
    pass


def same_endings(model, places):
    ends = {name.rpartition(".")[2] for name in places}
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends]


def under_a_dotted_name(model, places, make):
    model.requires_grad_(False)
    for name in places:
        setattr(model, name.replace(".", "_"), make(model.get_submodule(name)))
    return model


def into_a_copy(model, places, make):
    return placed()(copy.deepcopy(model), places, make)


def gives_nothing(model, places, make):
    placed()(model, places, make)


def freezing_in_the_loop(model, places, make):
    for name in places:
        model.requires_grad_(False)
        model.set_submodule(name, make(model.get_submodule(name)))
    return model


def returns_early(model, places, make):
    model.requires_grad_(False)
    for name in places:
        model.set_submodule(name, make(model.get_submodule(name)))
        return model


def through_the_parent(model, places, make):
    for parameter in model.parameters():
        parameter.requires_grad = False
    for name in places:
        parent, _, last = name.rpartition(".")
        parent = model.get_submodule(parent)
        setattr(parent, last, make(getattr(parent, last))) if not isinstance(parent, nn.ModuleDict) else parent.update(
            {last: make(parent[last])}
        )
    return model


def freezing_what_was_there(model, places, make):
    old = list(model.parameters())
    modules = dict(model.named_modules())
    for name in reversed(places):
        model.set_submodule(name, make(modules[name]))
    for parameter in old:
        parameter.requires_grad_(False)
    return model


# 5.9 A test of adapters ----------------------------------------------------------------------------------------------


def parts(run):
    base, adapted, inputs = run()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in adapted.parameters() if not parameter.requires_grad]
    return base, adapted, inputs, trained, frozen


def trained_for(adapted, inputs, trained, steps, make=torch.optim.SGD):
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = make(trained, lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        adapted(inputs).square().mean().backward()
        optimizer.step()
    return [not torch.equal(*pair) for pair in zip(before, trained)]


def starts_alike(run):
    base, adapted, inputs, _, _ = parts(run)
    return torch.allclose(base(inputs), adapted(inputs))


def trains_something(run):
    *_, trained, frozen = parts(run)
    return bool(trained) and bool(frozen)


def one_step_moves_all(run):
    _, adapted, inputs, trained, _ = parts(run)
    return bool(trained) and all(trained_for(adapted, inputs, trained, 1))


def differs_at_the_start(run):
    return not starts_alike(run)


def start_and_frozen(run):
    base, adapted, inputs, trained, frozen = parts(run)
    return bool(trained) and starts_alike(run) and len(frozen) == len(list(base.parameters()))


def without_care(run):
    _, adapted, inputs, trained, _ = parts(run)
    return all(trained_for(adapted, inputs, trained, 3))


def with_plain_descent(run):
    base, adapted, inputs, trained, frozen = parts(run)
    kept = [parameter.detach().clone() for parameter in base.parameters()]
    start = starts_alike(run)
    if not trained or sum(p.numel() for p in frozen) != sum(p.numel() for p in kept):
        return False
    moved = trained_for(adapted, inputs, trained, 3)
    return start and all(moved) and all(torch.equal(*pair) for pair in zip(kept, frozen))


def with_assertions(run):
    base, adapted, inputs, trained, frozen = parts(run)
    assert trained and {p.shape for p in frozen} == {p.shape for p in base.parameters()}
    assert torch.equal(base(inputs), adapted(inputs))
    assert len(frozen) == 4
    assert all(trained_for(adapted, inputs, trained, 5, torch.optim.Adam))
    assert all(torch.equal(*pair) for pair in zip(base.parameters(), frozen))
    return True


WRONG = {
    "5.1": [
        (everything_trained, "with parameters in the place of trained"),
        (states_for_all, "remembers frozen numbers"),
        (gradients_for_all, "frozen numbers have gradients"),
        (trained_weights_alone, "with trained in the place of parameters"),
        (one_moment, "one optimizer state per number"),
        (two_moments, "two moments always"),
        (numbers_alone, "not bytes"),
        (four_bytes, "4 bytes always"),
        (lambda *given: right_bytes(*given)[::-1], "order is another"),
        (lambda *given: sum(right_bytes(*given)), "expected a tuple"),
        (lambda *given: [size / 1e9 for size in right_bytes(*given)], "gigabytes"),
        (lambda *given: [8 * size for size in right_bytes(*given)], "these are bits"),
        (lambda *given: right_bytes(*given)[:2], "2 parts, expected 3"),
    ],
    "5.2": [
        (collecting(back=lambda tensor: None), "`pack` has to return the tensor"),
        (collecting(unpack=lambda tensor: None), "`unpack` what it is given"),
        (collecting(keep=torch.clone), "copies were collected"),
        (collecting(keeps=torch.Tensor.is_contiguous), "list every one"),
        (collecting(keeps=lambda tensor: not tensor.requires_grad), "list every one"),
        (collected_on_the_way_back, "nothing was collected while"),
        (outside_the_with, "nothing was collected while"),
        (twice, "ran twice"),
        (with_backward, "backward() was called"),
        (without_gradients, "nothing was collected while"),
        (sizes_alone, "the list holds a Size"),
        (never_called, "was not called"),
        (lambda forward: collecting()(forward)[::-1], "result[0] is a list"),
        (lambda forward: collecting()(forward)[1], "expected 2"),
    ],
    "5.3": [
        (every_tensor, "each tensor is counted"),
        (every_storage, "each tensor is counted"),
        (summed(own_too=True), "own"),
        (summed(size=lambda tensor: tensor.nbytes), "the bytes of a view"),
        (summed(size=lambda tensor: tensor.untyped_storage().nbytes() // tensor.element_size()), "not bytes"),
        (summed(size=lambda tensor: 4 * tensor.untyped_storage().nbytes() // tensor.element_size()), "4 bytes always"),
        (summed(key=torch.Tensor.data_ptr), "where they begin"),
        (own_by_identity, "a view of own is counted"),
        (own_subtracted, "own is subtracted"),
        (sizes_in_a_set, "tensors of one size"),
        (lambda tensors, own=(): len({storage(x) for x in tensors} - {storage(x) for x in own}), "number of storages"),
        (lambda tensors, own=(): every_tensor(tensors), "those of own too"),
    ],
    "5.4": [
        (step(weights=frozen_and_trained(True)), "weights: the trained ones alone"),
        (step(weights=frozen_and_trained(False)), "weights: the frozen ones alone"),
        (step(weights=lambda model: model.state_dict().values()), "the state_dict"),
        (step(weights=lambda model: [*model.parameters(), *model.buffers()]), "buffers are counted"),
        (step(gradients=lambda model: model.parameters()), "gradients of frozen"),
        (step(stepped=False), "no optimizer states"),
        (step(make=lambda parameters: torch.optim.SGD(parameters, lr=0.1)), "no optimizer states"),
        (step(make=lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
              moments=("exp_avg", "exp_avg_sq", "max_exp_avg_sq")), "one moment more"),
        (step(cleared=True), "no gradients"),
        (step(size=torch.numel), "not bytes"),
        (step(size=lambda tensor: 4 * tensor.numel()), "4 bytes always"),
        (step(moments=("exp_avg",)), "one moment of two"),
        (states_of_all, "states of frozen parameters"),
        (lambda model, loss: step()(model, loss)[::-1], "order is another"),
        (lambda model, loss: sum(step()(model, loss)), "expected a tuple"),
    ],
    "5.5": [
        (by_flag(lambda name, patterns, was: was or anywhere(name, patterns)), "nothing was frozen"),
        (by_flag(lambda name, patterns, was: was and anywhere(name, patterns)), "stays frozen"),
        (by_flag(lambda name, patterns, was: not anywhere(name, patterns)), "the other way round"),
        (by_flag(lambda name, patterns, was: all(fnmatch.fnmatch(name, p) for p in patterns)), "every pattern has"),
        (by_flag(lambda name, patterns, was: fnmatch.fnmatch(name, patterns[0])), "the first pattern alone"),
        (by_flag(lambda name, patterns, was: anywhere(name, patterns) or name.startswith(
            tuple(p.rstrip("*.") for p in patterns if p[0] != "*"))), "1 is found in 10"),
        (one_after_the_other, "the last pattern alone"),
        (on_copies, "no flag has changed"),
        (returns_nothing, "return the model"),
        (by_flag(lambda name, patterns, was: anywhere(name, patterns), checks=lambda *given: None), "is let pass"),
        (by_flag(lambda name, patterns, was: anywhere(name, patterns),
                 checks=lambda *given: refuse(*given, said="no match")), "does not say which"),
        (as_regular_expression, "1 is found in 10"),
        (by_flag(lambda name, patterns, was: any(p.strip("*") in name for p in patterns)), "inside a name too"),
        (by_flag(lambda name, patterns, was: name in patterns), "is frozen, though a pattern matches"),
        (by_flag(lambda name, patterns, was: refuse([name], patterns)), "patterns that match are refused"),
    ],
    "5.6": [
        (blocks_where(lambda name, first, k: number(name) >= first, norm=False), "model.norm, is missing"),
        (blocks_where(lambda name, first, k: 0 <= number(name) < k), "first k blocks"),
        (blocks_from_to(lambda count, k: max(count - k - 1, 0), lambda count, k: count), "one block too many"),
        (blocks_from_to(lambda count, k: count - k + 1, lambda count, k: count), "one block too few"),
        (blocks_from_to(lambda count, k: count - k, lambda count, k: count - 1), "the last block is missing"),
        (blocks_from_to(lambda count, k: max(count - 1 - k, 0), lambda count, k: count - 1), "one block too early"),
        (blocks_from_to(lambda count, k: count - k, lambda count, k: count, form="layers.{}"), "choose nothing"),
        (blocks_from_to(lambda count, k: count - k, lambda count, k: count, form="model.layers.{}"), "choose nothing"),
        (blocks_where(lambda name, first, k: number(name) >= first or "embed" in name), "embeddings are trained"),
        (blocks_where(lambda name, first, k: number(name) >= first or "lm_head" in name), "head is trained"),
        (blocks_where(lambda name, first, k: number(name) == first), "only block number"),
        (blocks_where(lambda name, first, k: number(name) >= first or "norm" in name), "lower blocks"),
        (compared_as_texts, "compared as texts"),
        (lambda names, k: "|".join(by_position(names, k)), "a str, expected a list"),
        (blocks_where(lambda name, first, k: number(name) >= first or number(name) < 0), "embeddings and head"),
        (blocks_where(lambda name, first, k: number(name) == first + k - 1), "only the last block"),
        (blocks_where(lambda name, first, k: number(name) >= first and "norm" not in name), "norms of these blocks"),
        (lambda names, k: names[-k:], "number of names"),
        (lambda names, k: [*by_position(names, k), "model.layers.99.*"], "'model.layers.99.*' matches no name"),
    ],
    "5.7": [
        (adapter(around=0.0), "y goes around and is added once"),
        (adapter(around=2.0), "y goes around and is added once"),
        (adapter(start=same), "set U and u to zero"),
        (adapter(first=zeroed), "both zero"),
        (adapter(bend=same), "nothing bends"),
        (adapter(bend=torch.relu), "relu instead"),
        (adapter(bend=functional.silu), "silu instead"),
        (adapter(bend=lambda x: functional.gelu(x, approximate="tanh")), "approximation by tanh"),
        (adapter(outside=functional.gelu), "gelu stands twice"),
        (adapter(bend=same, outside=functional.gelu), "behind U"),
        (adapter(sign=-1.0), "sign is turned"),
        (adapter(biases=(False, False)), "the biases are missing"),
        (adapter(biases=(False, True)), "bias d is missing"),
        (adapter(biases=(True, False)), "bias u is missing"),
        (adapter(keep=copy.deepcopy), "not a copy"),
        (adapter(keep=lambda base: [base]), "not in a list"),
        (OneLayer, "one linear layer alone"),
        (MadeInForward, "no parameters of its own"),
        (ForgetsSuper, "cannot assign module before Module.__init__"),
        (OnTheInput, "takes the layer's input"),
        (BentFirst, "gelu stands before D"),
        (WithNorm, "its own parameters have shapes"),
        (Detached, "no gradient reaches"),
    ],
    "5.8": [
        (placed(freeze=nothing, after=lambda model, places: model.requires_grad_(False)), "nothing is trained"),
        (placed(freeze=nothing), "nothing was frozen"),
        (placed(freeze=only_named), "wrapped layers alone are frozen"),
        (placed(freeze=all_but_named), "wrapped layers are still trained"),
        (placed(chosen=lambda model, places: places[:1]), "the first place alone"),
        (freezing_in_the_loop, "not all adapters are trained"),
        (returns_early, "the return inside the loop"),
        (placed(shared=True), "layer of its own place"),
        (gives_nothing, "return the model"),
        (under_a_dotted_name, "no adapter stands at 'layers.1"),
        (lambda model, places, make: model.requires_grad_(False), "no layer was replaced"),
        (into_a_copy, "not a copy"),
        (lambda model, places, make: placed()(model, places, lambda layer: make(nn.Linear(2, 2))), "something else"),
        (placed(chosen=same_endings), "not among the places"),
    ],
    "5.9": [
        (starts_alike, "does every trained tensor move"),
        (trains_something, "0 of 3 points"),
        (one_step_moves_all, "refuses the right run"),
        (differs_at_the_start, "refuses the right run"),
        (lambda run: True, "before anything is trained"),
        (without_care, "empty parameter list"),
    ],
}  # fmt: skip
RIGHT = {
    "5.1": [counted_in_a_list],
    "5.2": [in_one_line, by_number],
    "5.3": [in_a_loop, with_sets],
    "5.4": [by_hand, step()],
    "5.5": [in_two_passes, translated],
    "5.6": [by_position, with_a_set, blocks_where(lambda name, first, k: number(name) >= first)],
    "5.7": [InARow, OfParameters],
    "5.8": [through_the_parent, freezing_what_was_there],
    "5.9": [with_plain_descent, with_assertions],
}

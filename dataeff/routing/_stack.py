"""The blocks of a model, found by themselves."""

from collections.abc import Iterable, Sequence

from torch import nn

from dataeff._check import whole

_SMALL = 0.1  # of the largest stack's parameters: below it a stack is no tower, but convolutions before it


def blocks(model: nn.Module, skip: tuple[int, int]) -> list[nn.Module]:
    """The blocks of each stack of `model` but those at its ends: of an encoder and of a decoder, say.

    Stacks are the ModuleLists and Sequentials of modules of one class. The one with the most parameters
    counts (experts inside a block are more, but smaller), and those beside it that are not much smaller.
    Embeddings come last, however large. ValueError if there is none, or only one that is small beside a stack
    of several classes, or of lists, which are never called.

    Examples:
        >>> model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
        >>> blocks(model, (1, 1)) == [model[1], model[2]]
        True
    """
    if not isinstance(skip, tuple | list) or len(skip) != 2:
        raise ValueError(f"skip is {skip!r}; expected how many blocks to leave out at either end, as (1, 1)")
    first, last = (whole("an entry of skip", number, low=0) for number in skip)
    towers = _towers(model, first + last)
    odd = _passed_over(model, towers, first + last)
    if odd or not towers:
        raise ValueError(
            f"{type(model).__name__} has no stack of more than {first + last} like blocks{odd}; "
            "name them: attach(..., layers=[...])"
        )
    return [block for stack in towers for block in stack[first : len(stack) - last]]


def named_blocks(model: nn.Module, skip: tuple[int, int] = (0, 0)) -> dict[str, nn.Module]:
    """The blocks of each stack of `model`, by name, but those at its ends.

    Examples:
        >>> list(named_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))))
        ['0', '1']
    """
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(block)]: block for block in blocks(model, skip)}


def is_batch_first(layers: Iterable[nn.Module]) -> bool:
    """As torch's own attention in the layers says, if it is there.

    Examples:
        >>> is_batch_first([nn.TransformerEncoderLayer(4, 2), nn.Linear(4, 4)])
        False
    """
    modules = (module for layer in layers for module in layer.modules())
    return all(module.batch_first for module in modules if isinstance(module, nn.MultiheadAttention))


def siblings(model: nn.Module, layers: Sequence[nn.Module]) -> list[nn.Module]:
    """All blocks of the stacks that `layers` stand in, themselves too.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh())
        >>> len(siblings(model, [model[1]]))
        3
    """
    ids = {id(layer) for layer in layers}
    inside = [[*stack] for stack in stacks(model) if ids & {id(block) for block in stack}]
    return list({id(block): block for block in [*(b for stack in inside for b in stack), *layers]}.values())


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, of one that is compiled or a `checkpoint_wrapper`.

    Examples:
        >>> unwrapped(nn.Identity())
        Identity()
    """
    for name in ("_orig_mod", "_checkpoint_wrapped_module"):
        if hasattr(module, name):
            return unwrapped(getattr(module, name))
    return module


def is_called(module: nn.Module) -> bool:
    """Whether a module has a forward, as a ModuleList has not.

    Examples:
        >>> is_called(nn.Linear(2, 2)), is_called(nn.ModuleList())
        (True, False)
    """
    return getattr(module.forward, "__func__", None) is not nn.Module.forward


def stacks(model: nn.Module) -> list[nn.ModuleList | nn.Sequential]:
    """Every ModuleList and Sequential of a model.

    Examples:
        >>> len(stacks(nn.Sequential(nn.Linear(2, 2), nn.Sequential())))
        2
    """
    return [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]


def parts(model: nn.Module, layers: Sequence[nn.Module]) -> dict[str, str]:
    """Which of `layers` are only a part of a block, and stand in no stack, by name; each with its block's.

    Examples:
        >>> block = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
        >>> model = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        >>> parts(model, [model.layers[0], model.layers[1].self_attn])
        {'layers.1.self_attn': 'layers.1'}
    """
    names = {id(module): name for name, module in model.named_modules()}
    alone = {id(layer) for layer in layers} - {id(block) for stack in stacks(model) for block in stack}
    return {
        names[id(module)]: names[id(block)]
        for tower in _towers(model, 0)
        for block in tower
        for module in block.modules()
        if id(module) in alone and module is not block
    }


def _towers(model: nn.Module, ends: int) -> list[list[nn.Module]]:
    like = [stack for stack in map(list, stacks(model)) if _is_alike(stack) and len(stack) > ends]
    sizes = {id(stack): _size(stack) for stack in like}
    towers: list[list[nn.Module]] = []
    for stack in sorted(like, key=lambda stack: (isinstance(stack[0], nn.Embedding), -sizes[id(stack)])):
        inner = {id(module) for tower in towers for block in tower for module in block.modules()}
        beside = (
            bool(towers)
            and sizes[id(stack)] >= _SMALL * sizes[id(towers[0])]
            and next(stack[0].children(), None) is not None
            and not any(id(block) in inner for block in stack)
        )
        if not towers or beside:
            towers.append(stack)
    return [stack for stack in like if stack in towers]  # in the order of the model


def _is_alike(stack: Sequence[nn.Module]) -> bool:
    """Whether it is of different modules of one class, which are called."""
    kinds = {type(block) for block in stack}
    alike = len(kinds) == 1 and len({id(block) for block in stack}) == len(stack)
    return alike and is_called(stack[0])


def _passed_over(model: nn.Module, towers: Sequence[Sequence[nn.Module]], ends: int) -> str:
    """Of which stack the blocks may be, if the largest tower is only a part of it or of what is beside."""
    tower = max(towers, key=_size, default=[])
    size = _size(tower)
    for name, stack in model.named_modules():
        if not isinstance(stack, nn.ModuleList | nn.Sequential) or _is_alike(list(stack)):
            continue
        kinds = sorted({type(block).__name__ for block in stack})
        if len(stack) <= ends or len(kinds) == len(stack) or 2 * size >= _size(stack):
            continue
        inside = {id(module) for module in stack.modules()}
        if not tower or id(tower[0]) in inside or next(tower[0].children(), None) is None:
            said = " and ".join(kinds)
            return f": {name!r} is of {said}" + (
                "" if any(map(is_called, stack)) else ", which are never called"
            )
    return ""


def _size(stack: Iterable[nn.Module]) -> int:
    return sum(p.numel() for block in stack for p in block.parameters())

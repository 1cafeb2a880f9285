"""`leap.load`: the initialization in a run folder, an exported folder or a file of either, as a module and a vector.

Files are data here. A network is made by the classes of this package from the settings beside the parameters, or by the
caller; nothing from a folder is executed, `model.py` least of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leap.cli import configuration, networks
from leap.cli.settings import Settings
from leap.errors import LeapError, RunError, UsageError
from leap.foreign import check_plain
from leap.layout import Layout
from leap.run import EXTRA, unpack
from leap.sharing.folder import CONFIG, FORMAT, INITIALIZATION, LAYOUT, layout_document
from tasks.networks import KINDS, Network

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Held(NamedTuple):
    """What a file of an initialization holds, and what stands beside it; all of it checked against each other."""

    path: Path
    tensors: dict[str, Tensor]
    """The parameters by name, in the order of the layout."""
    extra: Tensor | None
    """What the learner keeps behind them; never in an export."""
    layout: Layout
    dtype: torch.dtype
    about: dict[str, Any]
    """The file's header."""
    settings: Settings | None
    """None where no config.yaml stands beside the file."""
    network: Network | None
    """None where the network is a person's own."""

    @property
    def exported(self) -> bool:
        """Whether `leap export` wrote the file."""
        return "network" in self.about


class _Pair(NamedTuple):
    module: nn.Module
    vector: Tensor


class Loaded(_Pair):
    """A module with the initialization's parameters, and the same as a vector [n]: unpacks as the two.

    Attributes:
        module: The network, in training mode, ready to be fine-tuned.
        vector: theta [n], a copy, in the order of the layout.
        layout: Where each parameter stands in the vector; `layout.shared < layout.n`: the head is only a place holder.
        about: What the file tells of itself: learner, family, seed, meta_steps, sha256, ...
    """

    layout: Layout
    about: Mapping[str, Any]


def load(path: str | Path, module: nn.Module | None = None) -> Loaded:
    """A learned initialization as an ordinary module, and as a vector.

    Args:
        path: A run folder that has finished, a folder that `leap export` wrote, or the initialization.safetensors of
            either. A run's file needs its config.yaml beside it.
        module: A network of one's own to load the parameters into, in place; needed where tasks are of one's own. By
            default the network that the run was trained with is made.

    Returns:
        `(module, vector)`, with `layout` and `about` as attributes. On the CPU, in the type it was trained in.

    Raises:
        UsageError: there is no such file, the run has not finished, or the network has to be given.
        RunError: the file is damaged, or it, its settings and its network do not belong together; what differs is told.

    Example:
        >>> import tempfile
        >>> from leap.cli import lifecycle
        >>> from leap.cli.settings import NoLearner, Settings, Sinusoid
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = lifecycle.start(Settings(Sinusoid(), learner=NoLearner(), tracking="none"), Path(folder, "run"))
        ...     module, theta = load(run.path)
        >>> module(torch.zeros(3, 1)).shape, theta.shape
        (torch.Size([3, 1]), torch.Size([1761]))
    """
    held = read(Path(path))
    if module is None:
        module = _made(held)
        module.load_state_dict({name: tensor.clone() for name, tensor in held.tensors.items()}, assign=True)
    else:
        _check_module(held, module, "the module given")
        module.load_state_dict(held.tensors, strict=False)  # its buffers are its own
    loaded = Loaded(module, held.layout.flatten(held.tensors))
    loaded.layout, loaded.about = held.layout, held.about
    return loaded


def read(path: Path) -> Held:
    """What is in a file of an initialization; raises as `load`."""
    file = _file(path.expanduser())
    tensors, about = _unpacked(file)
    extra = tensors.pop(EXTRA, None)
    layout = _layout(file, tensors, about)
    dtype = _dtype(file, tensors, about)
    config = file.parent / CONFIG
    settings = configuration.load(Settings, [config]) if config.is_file() else None
    if settings is not None:
        _check_settings(file, about, settings)
    told = _told_network(file, about) if "network" in about else None
    if settings is None:
        if "network" not in about:
            raise UsageError(f"{file} needs the {CONFIG} of its run beside it, which says what network it is of")
        network = told
    else:
        network = networks.network(settings, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        if "network" in about and _json(network) != _json(told):
            raise _differs(f"{config} and {file} are of different networks", _json(network), _json(told))
    beside = file.parent / LAYOUT
    if "network" in about and beside.is_file():
        expected = layout_document(layout, DTYPES[dtype], about["network"])
        if (found := _read_json(beside)) != expected:
            found = found if isinstance(found, dict) else {"content": found}
            raise _differs(f"{beside} is of another initialization than {file.name}", found, expected)
    return Held(file, {name: tensors[name] for name in layout.names}, extra, layout, dtype, about, settings, network)


def _file(path: Path) -> Path:
    """The file that a path means.

    Raises:
        UsageError: there is none.
        RunError: a pipe or a device stands in the folder.
    """
    check_plain(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; name a run folder, an exported folder, or its {INITIALIZATION}")
    if (path / INITIALIZATION).exists():
        return path / INITIALIZATION
    if (path / CONFIG).is_file():
        raise UsageError(f"{path} has no learned initialization yet; finish it with: leap train --resume {path}")
    raise UsageError(f"{path} holds no {INITIALIZATION}; name a run folder, or a folder that leap export wrote")


def _unpacked(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`leap.run.unpack`, and that the header is one that this version reads."""
    try:
        tensors, about = unpack(file)
    except (AttributeError, RecursionError, RuntimeError, OverflowError) as error:  # a header of other things
        raise RunError(f"{file} is damaged or was not written by leap ({type(error).__name__}: {error})") from error
    if about.get("format") != FORMAT:
        raise RunError(
            f"{file} has format {about.get('format')!r}, and this version reads format {FORMAT}; "
            "load it with the version of leap that wrote it"
        )
    return tensors, about


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged or cut short ({error}); restore it, or export the run again") from error


def _layout(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Layout:
    """The layout that the header tells, which the tensors must have."""
    try:
        told = about["layout"]
        names = tuple(told["names"])
        shapes = tuple(tuple(shape) for shape in told["shapes"])
        trunk, shared = int(told["trunk"]), int(told["shared"])
        if not tensors or set(names) != set(tensors) or len(names) != len(tensors):
            raise ValueError(f"its header names {sorted(map(str, names))}, and it holds {sorted(tensors)}")
        for name, shape in zip(names, shapes, strict=True):
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"{name} is {shape} in its header and {tuple(tensors[name].shape)} in the file")
        return Layout(names, shapes, trunk, shared)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{file} does not keep its own layout: {error}; restore it, or export its run again") from error


def _dtype(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> torch.dtype:
    """The one type of all parameters."""
    found = {tensor.dtype for tensor in tensors.values()}
    if len(found) != 1 or not found <= set(DTYPES):
        raise RunError(f"{file} holds parameters of types {sorted(map(str, found))}; a vector needs one type of floats")
    (dtype,) = found
    if about.get("dtype", DTYPES[dtype]) != DTYPES[dtype]:
        raise RunError(f"{file} says that it holds {about['dtype']}, and it holds {DTYPES[dtype]}; restore it")
    return dtype


def _check_settings(file: Path, about: Mapping[str, Any], settings: Settings) -> None:
    """That a file and the settings beside it are of the same run."""
    own = {"learner": settings.learner.name, "family": settings.tasks.name, "seed": settings.seed}
    told = {key: about.get(key) for key in own}
    if told != own:
        raise _differs(f"{file} and the {CONFIG} beside it are of different runs", told, own)


def _told_network(file: Path, about: Mapping[str, Any]) -> Network | None:
    told = about["network"]
    if told is None:
        return None
    try:
        found = Network(str(told["kind"]), dict(told["arguments"]))
        with torch.device("meta"):
            found.build()
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, ZeroDivisionError, LeapError) as error:
        known = f"known kinds: {', '.join(KINDS)}"
        what = " ".join(str(error).split())[:200]
        raise RunError(f"{file} tells of a network that cannot be made ({what}); {known}") from error
    return found


def _made(held: Held) -> nn.Module:
    """The run's network, without memory for its parameters until they are loaded."""
    if held.network is None:
        raise UsageError(
            f"{held.path} is of tasks of one's own, whose network leap does not know; "
            "give it: leap.load(path, module=my_network)"
        )
    module = check_network(held)
    assert module is not None
    return module


def check_network(held: Held) -> nn.Module | None:
    """The run's network on no device, where it has the parameters and the layout that are held; None: not known here.

    Raises:
        RunError: it has others.
    """
    if held.network is None:
        return None
    try:
        with torch.device("meta"):
            module = held.network.build()
    except (TypeError, ValueError, RuntimeError, OverflowError, LeapError) as error:
        raise RunError(f"the network of {held.path} cannot be made: {' '.join(str(error).split())[:200]}") from error
    _check_module(held, module, f"the network of {CONFIG}")
    if held.network.kind != "point":  # which has no head, and a layout of its own
        own = Layout.of(module, own_head=held.about.get("family") in networks.OWN_HEADS)
        if own != held.layout:
            parts = ({name: getattr(one, name) for name in ("names", "trunk", "shared")} for one in (held.layout, own))
            raise _differs(f"{held.path} has another layout than its network", *parts)
    return module


def _check_module(held: Held, module: nn.Module, what: str) -> None:
    """That a module has the parameters that the file holds."""
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    there = {name: tuple(parameter.shape) for name, parameter in trainable.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in held.tensors.items()}
    others = {name: parameter.dtype for name, parameter in trainable.items() if parameter.dtype != held.dtype}
    if there == wanted and others and not any(parameter.is_meta for parameter in trainable.values()):
        raise _differs(f"{held.path} is of another type than {what}", dict.fromkeys(others, held.dtype), others)
    if there != wanted:
        raise _differs(f"{held.path} is of another network than {what}", wanted, there)


def _json(network: Network | None) -> dict[str, Any]:
    return {"kind": None} if network is None else {"kind": network.kind, **network.arguments}


def _differs(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> RunError:
    """What to raise where two descriptions should be equal: the entries that are not."""
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    lines = [f"{key} is {_short(one.get(key))} against {_short(other.get(key))}" for key in keys[:4]]
    more = f", and {len(keys) - 4} more" if len(keys) > 4 else ""
    return RunError(f"{what}: {'; '.join(lines)}{more}. Restore the files, or export the run again")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."

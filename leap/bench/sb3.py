"""Stable-Baselines3's A2C as a contender, with our networks and settings, over its own environments or over ours.

`Raffin et al. 2021 <https://jmlr.org/papers/v22/20-1364.html>`_. It need not be installed: nothing here imports it
before it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from leap.bench.row import LeftOut
from leap.randomness import derive

NAME = "stable_baselines3"


class Network(NamedTuple):
    """Convolutions, each followed by a rectifier, and the width of a dense layer behind them."""

    convs: Sequence[tuple[int, int, int, int]]  # filters, kernel, stride, padding
    width: int


@dataclass(frozen=True)
class Settings:
    """Of A2C; the defaults are those of SB3's published Atari agents (rl-zoo3).

    Attributes:
        unroll: L, agent steps of a roll-out.
        discount: gamma.
        entropy, value_weight: Of the loss; the squared error has no factor 1/2, here and there.
        lr, alpha, eps, style: Of RMSProp. `tf`: epsilon inside the root and v = 1 at first, there `RMSpropTFLike`.
        norm: Gradients are no longer than this.
    """

    unroll: int = 5
    discount: float = 0.99
    entropy: float = 0.01
    value_weight: float = 0.25
    lr: float = 7e-4
    alpha: float = 0.99
    eps: float = 1e-5
    style: Literal["torch", "tf"] = "torch"
    norm: float = 0.5


class Single(Protocol):
    """One environment of `envs.vector.VectorEnv`, which restarts in the step after an end."""

    actions: int
    shape: tuple[int, int, int]

    def reset(self, seed: int) -> np.ndarray:
        """First observation, uint8 [1, C, H, W]."""

    def send(self, actions: np.ndarray) -> None:
        """Start one step."""

    def receive(self) -> Any:
        """Wait for it: an `envs.vector.Transition`."""

    def close(self) -> None:
        """Let go."""


def load() -> ModuleType:
    """The module `stable_baselines3`, imported in silence.

    Raises:
        LeftOut: it, or what it needs, is not installed.
    """
    try:
        with _quietly():
            return importlib.import_module(NAME)
    except ImportError as error:
        raise LeftOut(
            f"Stable-Baselines3 cannot be imported ({error}); pip install --no-deps stable-baselines3==2.9.2 "
            "cloudpickle 'gymnasium>=1.1'"
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """It warns of gym where that is installed, which it does not use."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def a2c(env: Any, network: Network | None, settings: Settings, seed: int) -> Any:
    """SB3's A2C on the CPU.

    Args:
        env: A vector environment of SB3.
        network: Given to it as a features extractor of its own; None: its default for pictures, Nature's.
        settings: As ours.
        seed: Of initialization and actions. SB3 seeds torch's, numpy's and Python's own generators with it.
    """
    module = load()
    optimizer: Any = torch.optim.RMSprop
    if settings.style == "tf":
        optimizer = importlib.import_module(f"{NAME}.common.sb2_compat.rmsprop_tf_like").RMSpropTFLike
    policy: dict[str, Any] = {
        "optimizer_class": optimizer, "optimizer_kwargs": {"alpha": settings.alpha, "eps": settings.eps},
    }  # fmt: skip
    if network is not None:
        policy |= {"features_extractor_class": _extractor(), "net_arch": []}
        policy["features_extractor_kwargs"] = {"network": network}
    return module.A2C(
        "CnnPolicy", env, learning_rate=settings.lr, n_steps=settings.unroll, gamma=settings.discount,
        ent_coef=settings.entropy, vf_coef=settings.value_weight, max_grad_norm=settings.norm, policy_kwargs=policy,
        seed=seed, device="cpu",
    )  # fmt: skip


def _extractor() -> type:
    base: Any = importlib.import_module(f"{NAME}.common.torch_layers").BaseFeaturesExtractor

    class Extractor(base):
        def __init__(self, observation_space: Any, network: Network) -> None:
            super().__init__(observation_space, network.width)
            channels = observation_space.shape[0]
            layers: list[nn.Module] = []
            for filters, kernel, stride, padding in network.convs:
                layers += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU()]
                channels = filters
            convs = nn.Sequential(*layers, nn.Flatten())
            with torch.no_grad():
                inputs = convs(torch.zeros(1, *observation_space.shape)).shape[1]
            self.layers = nn.Sequential(convs, nn.Linear(inputs, network.width), nn.ReLU())

        def forward(self, observations: Tensor) -> Tensor:
            found: Tensor = self.layers(observations)
            return found

    return Extractor


def atari(game: str, count: int, *, processes: bool, sticky: float, seed: int) -> Any:
    """SB3's own Atari environments: 84 x 84 grey, four in a stack, rewards clipped to their sign, games whole.

    Args:
        game: In CamelCase, as gymnasium has it.
        count: E.
        processes: Each in a process of its own (`SubprocVecEnv`), else all in this one (`DummyVecEnv`).
        sticky: Probability that a frame repeats the action of the frame before, within the emulator.
        seed: Of the first environment.

    Raises:
        LeftOut: what it needs is not installed.
    """
    load()
    try:
        for name in ("ale_py", "cv2"):
            importlib.import_module(name)
    except ImportError as error:
        raise LeftOut(f"SB3's Atari environments need ale-py and OpenCV ({error}); pip install ale-py "
                      "opencv-python-headless") from error  # fmt: skip
    vec_env = importlib.import_module(f"{NAME}.common.vec_env")
    with _quietly():
        env = importlib.import_module(f"{NAME}.common.env_util").make_atari_env(
            f"ale_py:ALE/{game}-v5", n_envs=count, seed=seed, wrapper_kwargs={"terminal_on_life_loss": False},
            env_kwargs={"frameskip": 1, "repeat_action_probability": sticky, "full_action_space": False},
            vec_env_cls=vec_env.SubprocVecEnv if processes else vec_env.DummyVecEnv,
        )  # fmt: skip
    return vec_env.VecFrameStack(env, 4)


def over(singles: Sequence[Single], *, clip: float | None, seed: int) -> Any:
    """Our environments as SB3 has them: they restart in the step that ends them.

    It has `episodes`, as `outcomes` of a batch of games: [agent step, unclipped score, length].

    Args:
        singles: E of them, each a vector environment of one.
        clip: Bound of the rewards that are learned from.
        seed: Of their trajectories.
    """
    load()
    base = importlib.import_module(f"{NAME}.common.vec_env").VecEnv
    return type("Over", (_SameStep, base), {})(list(singles), math.inf if clip is None else clip, seed)


class _SameStep:
    """The methods of SB3's `VecEnv`; see `over`."""

    def __init__(self, singles: list[Single], clip: float, seed: int) -> None:
        spaces = importlib.import_module("gymnasium.spaces")
        self.singles, self.clip, self.seed_, self.steps = singles, clip, seed, 0
        self.episodes: list[list[float]] = []
        self.render_mode = None
        seen, taken = spaces.Box(0, 255, singles[0].shape, np.uint8), spaces.Discrete(singles[0].actions)
        super().__init__(len(singles), seen, taken)  # type: ignore[call-arg]

    def reset(self) -> np.ndarray:
        seeds = [derive(self.seed_, "environment", place) for place in range(len(self.singles))]
        return np.concatenate([env.reset(seed) for env, seed in zip(self.singles, seeds, strict=True)])

    def step_async(self, actions: np.ndarray) -> None:
        for env, action in zip(self.singles, actions, strict=True):
            env.send(np.array([action]))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        found = [env.receive() for env in self.singles]
        self.steps += len(found)
        self.episodes += [[self.steps, own.score, own.length] for row in found for own in row.episodes]
        ended = [bool(row.terminated[0] | row.truncated[0]) for row in found]
        infos: list[dict[str, Any]] = [
            {"terminal_observation": row.obs[0], "TimeLimit.truncated": bool(row.truncated[0])} if end else {}
            for row, end in zip(found, ended, strict=True)
        ]
        again = [env for env, end in zip(self.singles, ended, strict=True) if end]
        for env in again:
            env.send(np.array([0]))  # ignored: it restarts
        first = iter([env.receive().obs for env in again])
        obs = [next(first) if end else row.obs for row, end in zip(found, ended, strict=True)]
        reward = np.concatenate([row.reward for row in found]).clip(-self.clip, self.clip)
        return np.concatenate(obs), reward, np.array(ended), infos

    def close(self) -> None:
        for env in self.singles:
            env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * len(self.singles)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("SB3's protocol has it, and A2C does not call it")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("SB3's protocol has it, and A2C does not call it")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * len(self.singles)

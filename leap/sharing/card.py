"""The model card of an exported initialization: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from leap.errors import UsageError
from leap.layout import Layout
from leap.report.evaluation import Evaluation
from leap.report.measures import Measures
from leap.sharing import folder, results
from leap.sharing.markdown import plain, table

UNKNOWN = "unknown"  # what the hub calls a licence that nobody stated
_INPUTS = {
    "omniglot": "drawings [B, 1, 28, 28], ink in [0, 1]",
    "glyphs": "drawings [B, 1, 28, 28], ink in [0, 1]",
    "multi_cv": "pictures [B, 3, 32, 32], standardized by channel with a task's own mean and standard deviation",
    "image_sets": "pictures [B, 3, 32, 32], standardized by channel (see tasks.normalization in config.yaml)",
    "digit_tasks": "pictures [B, 3, 32, 32], standardized by channel",
    "atari": "observations as bytes [B, C, H, W], as config.yaml has them",
    "tiny_games": "observations as bytes [B, C, H, W]",
    "sinusoid": "numbers [B, 1]",
    "quadratic": "nothing: the parameters are the point itself",
}


class Facts(NamedTuple):
    """What a card is made of; all of it plain data, and free of what tells a machine."""

    name: str
    about: Mapping[str, Any]
    """Header of the initialization: learner, family, seed, meta_steps."""
    config: Mapping[str, Any]
    layout: Layout
    dtype: str
    network: Mapping[str, Any] | None
    extra: int
    """How many numbers the learner keeps behind the parameters."""
    data: Sequence[Mapping[str, Any]]
    """name, what, terms and home (None: no published set)."""
    licence: str | None
    evaluation: Evaluation | None
    measures: Measures | None
    provenance: Mapping[str, Any]


def check_licence(given: str | None) -> str | None:
    """A licence's identifier as the hub writes them.

    Raises:
        UsageError: it cannot be one.

    Example:
        >>> check_licence("MIT"), check_licence("cc-by-4.0")
        ('mit', 'cc-by-4.0')
    """
    if given is None:
        return None
    if not given.isascii() or len(given) > 60 or not given.replace("-", "").replace(".", "").replace("+", "").isalnum():
        raise UsageError(
            f"--license needs an identifier such as mit, apache-2.0 or cc-by-4.0, got {given!r}; "
            "https://huggingface.co/docs/hub/repositories-licenses lists them"
        )
    return given.lower()


def card(facts: Facts) -> str:
    """README.md."""
    parts = [
        _front(facts),
        f"# {plain(facts.name) or 'initialization'}",
        _what(facts),
        *_section("Load it", _load(facts)),
        *_section("How it was trained", _trained(facts)),
        *_section("Measured", _measured(facts)),
        *_section("Limits", _limits(facts)),
        *_section("Data and licence", _licences(facts)),
        *_section("Files", _files(facts)),
    ]
    return "\n\n".join(parts) + "\n"


def _front(facts: Facts) -> str:
    import yaml

    head = {
        "license": facts.licence or UNKNOWN,
        "library_name": "pytorch",
        "tags": ["meta-learning", "initialization", "safetensors", facts.about["learner"], facts.about["family"]],
    }
    if published := [data["name"] for data in facts.data if data["home"] is not None]:
        head["datasets"] = published
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=False)}---"


def _what(facts: Facts) -> str:
    learner, family = facts.about["learner"], facts.about["family"]
    origin = (
        "A random initialization, the baseline of its comparison"
        if learner == "none"
        else f"An initialization that {plain(learner)} meta-learned"
    )
    kind = "tasks of its trainer's own" if family == "custom" else f"the tasks {plain(family)}"
    return (
        f"{origin} on {kind}: {facts.layout.n:,} parameters ({facts.dtype}) from which a network learns a new task of "
        "that kind. It is where training starts, not a trained model."
    )


def _load(facts: Facts) -> list[str]:
    lines = []
    if facts.network is None:
        lines += [
            "The network is of its trainer's own and not part of this folder. `layout.json` has names and shapes of "
            "the parameters; a torch module with parameters of these names takes them:",
            "",
            *_code(
                "import safetensors.torch, torch",
                'tensors = safetensors.torch.load_file("initialization.safetensors")',
                "net = YourNetwork()  # parameters named as in layout.json",
                "net.load_state_dict(tensors)",
                "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)",
            ),
        ]
    else:
        lines += [
            "With torch and safetensors, in this folder (`model.py` is the network in plain torch):",
            "",
            *_code(
                "import safetensors.torch, torch",
                "from model import model",
                "net = model()",
                'net.load_state_dict(safetensors.torch.load_file("initialization.safetensors"))',
                "optimizer = torch.optim.SGD(net.parameters(), lr=0.1)  # and train as always",
            ),
            "",
            f"Input: {_INPUTS[facts.about['family']]}.",
        ]
    call = 'leap.load("FOLDER")' if facts.network else 'leap.load("FOLDER", module=YourNetwork())'
    return [*lines, "", f"With leap: `module, theta = {call}`; nothing in the folder is executed."]


def _trained(facts: Facts) -> list[str]:
    config, rows = facts.config, []
    for name in ("learner", "tasks", "model", "inner", "meta"):
        section = config.get(name) or {}
        own = section.get("name")
        values = ", ".join(f"{key} {_value(value)}" for key, value in section.items() if key != "name")
        rows.append([name, plain(own) if own else "", plain_long(values)])
    train = config.get("train") or {}
    kept = ("inner_steps", "inner_epochs", "meta_steps", "meta_batch", "precision")
    values = ", ".join(f"{key} {_value(train[key])}" for key in kept if train.get(key) is not None)
    rows.append(["train", "", plain_long(values)])
    versions = facts.provenance.get("versions") or {}
    told = ", ".join(f"{key} {versions[key]}" for key in ("leap", "torch", "python") if key in versions)
    lines = table(("setting", "name", "values"), rows)
    lines[1] = "| --- | --- | --- |"
    more = f" {plain(told)}." if told else ""
    return [
        f"Seed {facts.about['seed']}, {plain(facts.about['meta_steps'])} meta-steps.{more} Everything that was set "
        "stands in `config.yaml`.",
        "",
        *lines,
    ]


def _measured(facts: Facts) -> list[str]:
    lines = []
    if facts.evaluation is not None:
        lines += results.evaluated(facts.evaluation)
    if facts.measures is not None and (found := results.measured(facts.measures)):
        lines += ["", *found] if lines else found
    return lines or ["Nothing was measured before the export: `leap evaluate` and `leap measure` do that."]


def _limits(facts: Facts) -> list[str]:
    lines = [
        "- It helps, if at all, with tasks like those it was trained on; the figures above are about such tasks, their "
        "inner optimizer and their number of steps.",
    ]
    if facts.layout.shared < facts.layout.n:
        lines.append(
            "- Tasks have heads of their own: the head in the file is random and only holds a place. Put one of your "
            "number of outputs in its place, `net.head = ...`, before you train."
        )
    arguments = (facts.network or {}).get("arguments", {})
    if arguments.get("norm") == "batch":
        lines.append(
            "- Normalization uses the statistics of the batch at hand, in training and afterwards. `net(images, rows)` "
            "takes them from the first `rows` images alone, as scores above did with a task's training images."
        )
    if facts.about["learner"] == "meta_sgd":
        lines.append(
            "- Meta-SGD learned a rate for each parameter as well: `rates.safetensors`, by the same names. A step is "
            "parameter - rate * gradient; with another optimizer the figures above do not apply."
        )
    elif facts.extra:
        lines.append(
            f"- The learner kept {facts.extra:,} numbers beside these parameters while it trained, which are not part "
            "of the export."
        )
    return lines


def _licences(facts: Facts) -> list[str]:
    own = f"`license: {facts.licence}`, as its exporter says."
    if facts.licence is None:
        own = (
            "Nobody stated a licence of this initialization. Its owner sets one with `leap export ... --license ID` or "
            "in the first lines of this file."
        )
    rows = [
        [plain(data["name"]), plain(data["what"]), plain(data["terms"]), f"<{data['home']}>" if data["home"] else ""]
        for data in facts.data
    ]
    lines = table(("trained on", "what", "terms, as far as leap knows", "from"), rows)
    lines[1] = "| --- | --- | --- | --- |"
    code = [] if facts.network is None else ["", "`model.py` is part of leap and MIT."]
    return [own, "", *lines, *code]


def _files(facts: Facts) -> list[str]:
    lines = [
        "- `initialization.safetensors`: the parameters by name; its header tells learner, family, seed and a digest",
        "- `layout.json`: names, shapes, and where they stand in the vector; `config.yaml`: the run's settings; "
        "`provenance.json`: versions",
    ]
    if facts.network is not None:
        lines.append(f"- `{folder.MODEL}`: the network, plain torch; it is for people, and leap never runs it")
    if facts.about["learner"] == "meta_sgd":
        lines.append(f"- `{folder.RATES}`: the learned rate of each parameter")
    return lines


def plain_long(text: str) -> str:
    """Escaped text of any reasonable length, cut at word ends."""
    words, lines = text.split(" "), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 100:
            lines.append("")
        lines[-1] += f"{word} "
    return " ".join(filter(None, map(plain, lines[:12])))


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(lines)]


def _code(*lines: str) -> list[str]:
    return ["```python", *lines, "```"]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""`leap export`: put a learned initialization into a folder to share, with what it is, was trained on and reached."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap.cli.arguments import Option, help_text, split
from leap.errors import UsageError

if TYPE_CHECKING:
    from leap.cli.loading import Held
    from leap.report.runs import Run

OPTIONS = (
    Option("--to", "path", "Folder to write; a new or empty one, or an earlier export of the same run.", "FOLDER"),
    Option("--license", "value", "Licence of the initialization, as the hub writes it: mit, cc-by-4.0, ...", "ID"),
    Option("--upload", "value", "Upload the folder to the Hugging Face hub, private unless --public.", "USER/NAME"),
    Option("--public", "flag", "With --upload: for everyone to see."),
)
USAGE = "leap export RUN_FOLDER --to FOLDER [--license ID] [--upload USER/NAME [--public]]"
ABOUT = (
    "Write a finished run's initialization to a folder that stands for itself: parameters (safetensors), layout,\n"
    "settings, the network in plain torch, and a model card with what was measured. No path of this machine is told."
)


def main(argv: Sequence[str]) -> int:
    """Run `leap export RUN_FOLDER --to FOLDER`; see `leap export --help`."""
    arguments = split(argv, OPTIONS, fields=False)
    options = arguments.options
    if options["help"]:
        print(help_text(USAGE, ABOUT, OPTIONS))
        return 0
    if len(arguments.files) != 1:
        raise UsageError(f"name one run folder, got {len(arguments.files)}: {USAGE}")
    if options["to"] is None:
        raise UsageError(f"say where to write with --to FOLDER: {USAGE}")
    if options["public"] and options["upload"] is None:
        raise UsageError("--public is about an upload; add --upload USER/NAME, or leave it out")
    from leap.sharing import hub
    from leap.sharing.card import check_licence

    licence = check_licence(options["license"])
    if options["upload"] is not None:
        hub.check_name(options["upload"])
        hub.library()  # before anything is written
    folder = export(Path(arguments.files[0]), options["to"], licence)
    print(f"exported {folder}")
    if licence is None:
        print("licence  unknown; add --license ID to state one", file=sys.stderr)
    if options["upload"] is not None:
        print(f"uploaded {hub.upload(folder, options['upload'], public=options['public'], say=print)}")
    return 0


def export(run: Path, to: Path, licence: str | None = None) -> Path:
    """Write the export of a finished run; the folder.

    Raises:
        UsageError: the run has not finished, it is an export itself, or the folder is taken.
        RunError: a file of the run is damaged; nothing has been written then.
    """
    from leap.sharing.folder import INITIALIZATION, check_target, place

    files = contents(run.expanduser(), licence)
    target = check_target(to, files[INITIALIZATION])
    place(target, files)
    return target


def contents(folder: Path, licence: str | None = None) -> dict[str, bytes]:
    """Every file of an export by name; equal for equal runs. Raises as `export`."""
    from leap.cli import configuration, loading, sources
    from leap.report.runs import read_run
    from leap.run import RunFolder, pack
    from leap.sharing import folder as names
    from leap.sharing import privacy

    RunFolder.open(folder)
    held = loading.read(folder)
    if held.exported:
        raise UsageError(f"{folder} is an export already; copy it, or export the run that it came from")
    loading.check_network(held)
    run = read_run(folder)
    about = {key: held.about.get(key) for key in ("learner", "family", "seed", "meta_steps")}
    config = privacy.without_places(configuration.to_dict(held.settings))
    facts = privacy.facts(run.provenance)
    network = None if held.network is None else held.network.told()
    layout = names.layout_document(held.layout, loading.DTYPES[held.dtype], network)
    shape = {key: layout[key] for key in ("names", "shapes", "trunk", "shared")}
    header = {**about, "dtype": layout["dtype"], "network": network, "layout": shape}
    files = {
        names.INITIALIZATION: pack(held.tensors, header),
        names.LAYOUT: _json(layout),
        names.CONFIG: sources.dump(config).encode(),
        names.PROVENANCE: _json({"format": names.FORMAT, **about, **facts}),
        names.CARD: _card(held, run, about, config, facts, licence).encode("utf-8", "replace"),
    }
    if network is not None:
        files[names.MODEL] = source(network, layout["dtype"]).encode()
    if about["learner"] == "meta_sgd" and held.extra is not None and len(held.extra) == held.layout.n:
        files[names.RATES] = pack(held.layout.unflatten(held.extra), {**about, "what": "learned rates"})
    return files


def _card(
    held: Held, run: Run, about: dict[str, Any], config: dict[str, Any], facts: dict[str, Any], licence: str | None
) -> str:
    from leap.cli.loading import DTYPES
    from leap.cli.terms import terms
    from leap.sharing.card import Facts, card

    assert held.settings is not None  # the folder is a run's, and has its config.yaml
    return card(
        Facts(
            name=run.folder.resolve().name,
            about=about,
            config=config,
            layout=held.layout,
            dtype=DTYPES[held.dtype],
            network=None if held.network is None else held.network.told(),
            extra=0 if held.extra is None else len(held.extra),
            data=[data._asdict() for data in terms(held.settings)],
            licence=licence,
            evaluation=run.evaluation,
            measures=run.measures,
            provenance=facts,
        )
    )


def source(network: Mapping[str, Any], dtype: str = "float32") -> str:
    """model.py: the network in plain torch, and `model()`, which makes it as it was.

    Example:
        >>> source({"kind": "mlp", "arguments": {"hidden": [40, 40]}}).splitlines()[-1]
        '    return MLP(hidden=(40, 40))'
    """
    module = importlib.import_module(f"leap.sharing.plain_{network['kind']}")
    (made,) = (name for name in vars(module) if name.lower() == network["kind"])
    arguments = ", ".join(f"{key}={_literal(value)}" for key, value in network["arguments"].items())
    typed = "" if dtype == "float32" else f".to(torch.{dtype})"
    head = f"# Part of leap, (c) the leap authors, MIT licence.\n{inspect.getsource(module).rstrip()}"
    if typed and "import torch\n" not in head:
        head = head.replace("\nfrom torch import", "\nimport torch\nfrom torch import", 1)
    doc = '"""The network that the parameters are of."""'
    return f"{head}\n\n\ndef model() -> {made}:\n    {doc}\n    return {made}({arguments}){typed}\n"


def _literal(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def _json(document: Mapping[str, Any]) -> bytes:
    """JSON with a line an entry."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
